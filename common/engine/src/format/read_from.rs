//! Reads a file without moving its position.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Deref;
use std::os::unix::fs::FileExt;

/// Reads an open file from a position of its own, so that several can read the same one at the same time.
#[derive(Debug)]
pub struct ReadFrom<F> {
    file: F,
    at: u64,
}

impl<F: Deref<Target = File>> ReadFrom<F> {
    /// Reads `file` from byte `at` on.
    pub(crate) fn new(file: F, at: u64) -> Self {
        Self { file, at }
    }
}

impl<F: Deref<Target = File>> Read for ReadFrom<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(buffer, self.at)?;
        self.at += len as u64;
        Ok(len)
    }
}

impl<F: Deref<Target = File>> Seek for ReadFrom<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn readers_of_one_file_do_not_move_each_other() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let (mut one, mut other) = (ReadFrom::new(&file, 0), ReadFrom::new(&file, 4));
        let read = |reader: &mut ReadFrom<_>, len| {
            let mut bytes = vec![0; len];
            reader.read_exact(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(read(&mut one, 3), "012");
        assert_eq!(read(&mut other, 2), "45");
        assert_eq!(read(&mut one, 3), "345");
        other.rewind().unwrap();
        assert_eq!(read(&mut other, 2), "01");
        one.seek(SeekFrom::End(-2)).unwrap();
        assert_eq!(read(&mut one, 2), "89");
        assert!(one.seek(SeekFrom::Current(-11)).is_err());
    }
}
