//! The checksum of a command: CRC-32C with seed 0 and without the final inversion.

/// Position of the CRC in a command's header; it counts as zero in the computation.
pub(crate) const CRC_AT: std::ops::Range<usize> = 6..10;

/// Computes the checksum of a whole command, including its header, ignoring its CRC field.
pub(crate) fn of_command(frame: &[u8]) -> u32 {
    let (head, rest) = frame.split_at(CRC_AT.start.min(frame.len()));
    let payload = rest.get(CRC_AT.len()..).unwrap_or_default();
    let mut crc = START;
    for part in [head, &[0; CRC_AT.end - CRC_AT.start], payload] {
        crc = crc32c::crc32c_append(crc, part);
    }
    !crc
}

/// The crc32c crate inverts before and after; starting from all ones makes that seed 0.
const START: u32 = !0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_check_value_of_the_kernel_s_variant() {
        assert_eq!(!crc32c::crc32c_append(START, b"123456789"), 0x58e3_fa20);
    }

    #[test]
    fn the_crc_field_itself_does_not_count() {
        let zeroed = *b"\x04\0\0\0\x15\0\0\0\0\0data";
        let mut filled = zeroed;
        filled[CRC_AT].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(of_command(&filled), of_command(&zeroed));
        assert_eq!(of_command(&zeroed), !crc32c::crc32c_append(START, &zeroed));
    }
}
