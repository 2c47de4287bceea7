//! Decompresses LZO1X as used by the kernel.
//!
//! This is own code because the data is untrusted: every read and every copy is checked, nothing is
//! allocated, and nothing can panic. The format is described in the kernel's `Documentation/staging/lzo.rst`.

/// The data is not LZO1X, or its output exceeds the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("broken LZO data")]
pub struct Broken;

/// Decompresses `input` into `output`; returns the number of bytes written.
pub(crate) fn decompress(input: &[u8], output: &mut [u8]) -> Result<usize, Broken> {
    let mut coder = Coder {
        input,
        output,
        written: 0,
    };
    coder.run()?;
    Ok(coder.written)
}

/// Number of literals copied by the last instruction, which changes the meaning of small opcodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    None,
    OneToThree,
    Run,
}

struct Coder<'a> {
    input: &'a [u8],
    output: &'a mut [u8],
    written: usize,
}

impl Coder<'_> {
    fn run(&mut self) -> Result<(), Broken> {
        let mut after = self.first()?;
        loop {
            let op = self.byte()?;
            let (len, distance, literals) = match op {
                64.. => {
                    let distance = (self.byte()? << 3) + ((op >> 2) & 7) + 1;
                    ((op >> 5) + 1, distance, op & 3)
                }
                32.. => {
                    let len = self.length(op & 31, 31)? + 2;
                    let tail = self.pair()?;
                    (len, (tail >> 2) + 1, tail & 3)
                }
                16.. => {
                    let len = self.length(op & 7, 7)? + 2;
                    let tail = self.pair()?;
                    let distance = ((op & 8) << 11) + (tail >> 2);
                    if distance == 0 {
                        return self.end(len);
                    }
                    (len, distance + 0x4000, tail & 3)
                }
                _ if after == After::None => {
                    let len = self.length(op, 15)? + 3;
                    self.literals(len)?;
                    after = After::Run;
                    continue;
                }
                _ if after == After::Run => (3, (self.byte()? << 2) + (op >> 2) + 0x801, op & 3),
                _ => (2, (self.byte()? << 2) + (op >> 2) + 1, op & 3),
            };
            self.repeat(len, distance)?;
            after = self.few(literals)?;
        }
    }

    /// Decodes the first byte, which may contain the number of initial literals.
    fn first(&mut self) -> Result<After, Broken> {
        match self.input.first() {
            Some(&op @ 18..=20) => {
                self.byte()?;
                self.few(usize::from(op) - 17)
            }
            Some(&op @ 21..) => {
                self.byte()?;
                self.literals(usize::from(op) - 17)?;
                Ok(After::Run)
            }
            _ => Ok(After::None),
        }
    }

    /// Checks the end mark, which has length 3 and must be the last instruction.
    fn end(&self, len: usize) -> Result<(), Broken> {
        if len == 3 && self.input.is_empty() {
            return Ok(());
        }
        Err(Broken)
    }

    /// Copies up to three literals after an instruction.
    fn few(&mut self, count: usize) -> Result<After, Broken> {
        if count == 0 {
            return Ok(After::None);
        }
        self.literals(count)?;
        Ok(After::OneToThree)
    }

    fn byte(&mut self) -> Result<usize, Broken> {
        let (&byte, rest) = self.input.split_first().ok_or(Broken)?;
        self.input = rest;
        Ok(byte.into())
    }

    fn pair(&mut self) -> Result<usize, Broken> {
        Ok(self.byte()? | (self.byte()? << 8))
    }

    /// Decodes a length: `short`, or if that is 0 `base`, plus 255 for each zero byte, plus the next byte.
    fn length(&mut self, short: usize, base: usize) -> Result<usize, Broken> {
        if short != 0 {
            return Ok(short);
        }
        let mut len = base;
        loop {
            match self.byte()? {
                0 => len = len.checked_add(255).ok_or(Broken)?,
                last => return len.checked_add(last).ok_or(Broken),
            }
        }
    }

    fn literals(&mut self, count: usize) -> Result<(), Broken> {
        let (from, rest) = self.input.split_at_checked(count).ok_or(Broken)?;
        let to = self.output[self.written..].get_mut(..count).ok_or(Broken)?;
        to.copy_from_slice(from);
        self.input = rest;
        self.written += count;
        Ok(())
    }

    /// Copies from the output written before; the ranges may overlap, which repeats a pattern.
    fn repeat(&mut self, len: usize, distance: usize) -> Result<(), Broken> {
        let from = self.written.checked_sub(distance).ok_or(Broken)?;
        let end = self.written.checked_add(len).ok_or(Broken)?;
        let window = self.output.get_mut(from..end).ok_or(Broken)?;
        if distance >= len {
            window.copy_within(..len, distance);
        } else {
            for at in distance..window.len() {
                window[at] = window[at - distance];
            }
        }
        self.written = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn round_trip(data: &[u8]) {
        let packed = lzokay_native::compress(data).unwrap();
        let mut out = vec![0xee; data.len()];
        assert_eq!(decompress(&packed, &mut out), Ok(data.len()));
        assert!(out == data, "decoded bytes differ");
    }

    #[test]
    fn data_packed_elsewhere_is_unpacked() {
        round_trip(b"x");
        round_trip(&[0; 4096]);
        round_trip(&b"abcabcabcabd".repeat(400));
        let far: Vec<u8> = (0..60_000_u32).map(|n| ((n * n) >> 7) as u8).collect();
        round_trip(&[&far[..], &far].concat());
    }

    #[test]
    fn nothing_but_the_end_mark_is_nothing() {
        assert_eq!(decompress(&[17, 0, 0], &mut [0; 10]), Ok(0));
        assert_eq!(decompress(&[], &mut [0; 10]), Err(Broken));
        assert_eq!(decompress(&[17, 0, 0, 0], &mut [0; 10]), Err(Broken));
    }

    #[test]
    fn data_that_makes_too_much_is_refused() {
        let packed = lzokay_native::compress(&[7; 4096]).unwrap();
        assert_eq!(decompress(&packed, &mut [0; 4095]), Err(Broken));
    }

    proptest! {
        #[test]
        fn any_text_survives(
            words in vec(vec(any::<u8>(), 1..40), 1..12),
            picks in vec(any::<prop::sample::Index>(), 1..300),
        ) {
            let data: Vec<u8> = picks.iter().flat_map(|p| p.get(&words).clone()).collect();
            round_trip(&data);
        }

        #[test]
        fn no_bytes_panic(data in vec(any::<u8>(), 0..300)) {
            let _ = decompress(&data, &mut [0; 4096]);
        }
    }
}
