//! Counts how much of a call has been written: parses the frames of an HTTP/2 connection as this side writes them
//! (RFC 9113, sections 3.4 and 4.1).
//!
//! A count of all bytes would be wrong: if the receiver grants a window of one byte at a time, nine bytes of frame
//! head are written with each byte, and data not yet written would count as written.

/// Length of the client's connection preface.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// Length of the head of a frame: 24 bits of length, 8 of type, 8 of flags, 32 of stream.
const HEAD: usize = 9;

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Parser of a client's output.
#[derive(Debug)]
pub struct Frames {
    /// Bytes of the preface that are still to come.
    preface: usize,
    head: [u8; HEAD],
    /// Bytes of `head` that have been read.
    read: usize,
    /// Bytes of the current frame that are still to come.
    rest: usize,
    /// Whether the current frame is data of the newest call.
    counts: bool,
    newest: u32,
    data: u64,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            preface: PREFACE,
            head: [0; HEAD],
            read: 0,
            rest: 0,
            counts: false,
            newest: 0,
            data: 0,
        }
    }
}

impl Frames {
    /// Parses the bytes that were written next.
    pub fn written(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = if self.preface > 0 {
                let taken = self.preface.min(bytes.len());
                self.preface -= taken;
                taken
            } else if self.rest > 0 {
                let taken = self.rest.min(bytes.len());
                self.rest -= taken;
                if self.counts {
                    self.data += taken as u64;
                }
                taken
            } else {
                let taken = (HEAD - self.read).min(bytes.len());
                self.head[self.read..][..taken].copy_from_slice(&bytes[..taken]);
                self.read += taken;
                if self.read == HEAD {
                    self.begin();
                }
                taken
            };
            bytes = &bytes[taken..];
        }
    }

    /// Bytes of messages, with their heads, of the newest call. This side never pads.
    pub fn data(&self) -> u64 {
        self.data
    }

    fn begin(&mut self) {
        let [a, b, c, kind, _flags, stream @ ..] = self.head;
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        self.read = 0;
        self.rest = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == HEADERS && stream > self.newest {
            self.newest = stream;
            self.data = 0;
        }
        self.counts = kind == DATA && stream == self.newest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: u8 = 4;

    fn frame(kind: u8, stream: u32, len: usize) -> Vec<u8> {
        let len_bytes = u32::try_from(len).unwrap().to_be_bytes();
        let head = [&len_bytes[1..], &[kind, 0], &stream.to_be_bytes()[..]].concat();
        // Its content looks like frames of data.
        [head, vec![0; len]].concat()
    }

    fn conversation() -> Vec<u8> {
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0, 18),
            frame(HEADERS, 1, 40),
            frame(DATA, 1, 100),
            frame(HEADERS, 3, 70_000),
            frame(DATA, 1, 50), // the rest of the first call
            frame(DATA, 3, 20),
            frame(SETTINGS, 0, 0),
            frame(DATA, 3, 0),
            frame(DATA, 3, 1),
            frame(HEADERS, 3, 9), // trailers
        ]
        .concat()
    }

    #[test]
    fn only_the_newest_calls_messages_count_however_they_are_cut() {
        let all = conversation();
        for len in [1, 2, 8, 9, 10, 23, 24, 25, all.len()] {
            let mut frames = Frames::default();
            for piece in all.chunks(len) {
                frames.written(piece);
            }
            assert_eq!(frames.data(), 21, "in pieces of {len}");
        }
    }

    #[test]
    fn data_count_as_they_are_written_and_not_before() {
        let mut frames = Frames::default();
        let all = conversation();
        let (most, last) = all.split_at(all.len() - 19); // the last byte of data, and trailers
        frames.written(most);
        assert_eq!(frames.data(), 20);
        frames.written(&last[..1]);
        assert_eq!(frames.data(), 21);
    }
}
