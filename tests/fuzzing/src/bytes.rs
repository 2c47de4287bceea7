//! Taking an input apart. What is missing at its end is zero, so every input means something.

/// The rest of an input.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

/// Numbers at which something may change: sizes of blocks and limits, and the ends of what a number can be.
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
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// The next two.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number, often one at which something may change.
    pub fn number(&mut self) -> u64 {
        let which = usize::from(self.byte());
        match NUMBERS.get(which) {
            Some(number) => *number,
            None if which < 128 => u64::from(self.short()),
            None => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    /// As many bytes as there are, up to `len`.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length, and as many bytes.
    pub fn counted(&mut self) -> &'a [u8] {
        let len = self.byte();
        self.take(len.into())
    }

    /// An array, zero where nothing is left.
    pub fn array<const LEN: usize>(&mut self) -> [u8; LEN] {
        let mut array = [0; LEN];
        let taken = self.take(LEN);
        array[..taken.len()].copy_from_slice(taken);
        array
    }
}
