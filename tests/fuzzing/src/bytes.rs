//! Reads values from an input. Beyond its end all bytes are zero, so every input is valid.

/// The rest of an input.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

/// Boundary values: sizes of blocks, limits, and the ends of integer types.
const NUMBERS: [u64; 24] = [
    0,
    1,
    2,
    7,
    255,
    4095,
    4096,
    4097,
    8192,
    65_535,
    65_536,
    131_072,
    131_073,
    1 << 20,
    1 << 30,
    u32::MAX as u64 - 1,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    i64::MAX as u64 - 4095,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX,
];

impl<'a> Bytes<'a> {
    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Reads two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Reads a number, often a boundary value.
    pub fn number(&mut self) -> u64 {
        let which = usize::from(self.byte());
        match NUMBERS.get(which) {
            Some(number) => *number,
            None if which < 128 => u64::from(self.short()),
            None => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    /// Reads up to `len` bytes, as many as are left.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Reads a length, and as many bytes.
    pub fn counted(&mut self) -> &'a [u8] {
        let len = self.byte();
        self.take(len.into())
    }

    /// Reads an array, padded with zeros.
    pub fn array<const LEN: usize>(&mut self) -> [u8; LEN] {
        let mut array = [0; LEN];
        let taken = self.take(LEN);
        array[..taken.len()].copy_from_slice(taken);
        array
    }
}
