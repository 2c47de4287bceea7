//! Formats commands as lines of text for users, similar to `btrfs receive --dump`.

use std::fmt::{self, Display, Write as _};

use crate::command::{Command, Timespec};

/// Width of the command name's column.
const NAME_WIDTH: usize = 16;
/// Width of the path's column; longer paths shift the rest to the right.
const PATH_WIDTH: usize = 32;

/// Formats a command as one line of text, without the line end.
///
/// ```
/// use sendshot_stream::{Command, dump};
/// let command = Command::Truncate { path: b"a\nb", size: 5 };
/// assert_eq!(
///     dump::line(&command).to_string(),
///     "truncate        ./a\\nb                           size=5"
/// );
/// ```
pub fn line<'a>(command: &'a Command<'a>) -> impl Display + 'a {
    Line(command)
}

/// Formats bytes as printable text on one line that can be converted back: with the escapes of a C string for
/// everything that is not printable UTF-8, and for blanks and backslashes.
///
/// ```
/// assert_eq!(sendshot_stream::dump::escaped(b"a b\\\xff\x1b").to_string(), r"a\ b\\\xff\x1b");
/// ```
pub fn escaped(bytes: &[u8]) -> impl Display + '_ {
    Escaped(bytes)
}

struct Line<'a>(&'a Command<'a>);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = self.0;
        if matches!(command, Command::End) {
            return f.write_str(command.name());
        }
        let mut details = String::new();
        write_details(command, &mut details)?;
        let path = format!("./{}", Escaped(command.path()));
        if details.is_empty() {
            return write!(f, "{:<NAME_WIDTH$}{path}", command.name());
        }
        write!(
            f,
            "{:<NAME_WIDTH$}{path:<PATH_WIDTH$} {details}",
            command.name()
        )
    }
}

fn write_details(command: &Command<'_>, out: &mut String) -> fmt::Result {
    match *command {
        Command::Subvol { uuid, ctransid, .. } => write!(out, "uuid={uuid} transid={ctransid}"),
        Command::Snapshot {
            uuid,
            ctransid,
            clone_uuid,
            clone_ctransid,
            ..
        } => write!(
            out,
            "uuid={uuid} transid={ctransid} parent_uuid={clone_uuid} parent_transid={clone_ctransid}"
        ),
        Command::Mknod { mode, rdev, .. } => {
            write!(out, "mode={mode:o}")?;
            match Command::device_numbers(rdev) {
                Some((major, minor)) => write!(out, " dev={major}:{minor}"),
                None => write!(out, " dev={rdev:#x}"),
            }
        }
        Command::Symlink { target, .. } => write!(out, "dest={}", Escaped(target)),
        Command::Rename { to, .. } => write!(out, "dest=./{}", Escaped(to)),
        Command::Link { existing, .. } => write!(out, "dest=./{}", Escaped(existing)),
        Command::SetXattr { name, data, .. } => write!(
            out,
            "name={} data={} len={}",
            Escaped(name),
            Escaped(data),
            data.len()
        ),
        Command::RemoveXattr { name, .. } => write!(out, "name={}", Escaped(name)),
        Command::Write { offset, data, .. } => write!(out, "offset={offset} len={}", data.len()),
        Command::Clone {
            offset,
            len,
            clone_uuid,
            clone_ctransid,
            clone_path,
            clone_offset,
            ..
        } => write!(
            out,
            "offset={offset} len={len} from=./{} clone_offset={clone_offset} \
             clone_uuid={clone_uuid} clone_transid={clone_ctransid}",
            Escaped(clone_path)
        ),
        Command::Truncate { size, .. } => write!(out, "size={size}"),
        Command::Chmod { mode, .. } => write!(out, "mode={mode:o}"),
        Command::Chown { uid, gid, .. } => write!(out, "uid={uid} gid={gid}"),
        Command::Utimes {
            atime,
            mtime,
            ctime,
            otime,
            ..
        } => {
            write!(out, "atime={atime} mtime={mtime} ctime={ctime}")?;
            otime.map_or(Ok(()), |otime| write!(out, " otime={otime}"))
        }
        Command::UpdateExtent { offset, len, .. } => write!(out, "offset={offset} len={len}"),
        Command::Fallocate {
            mode, offset, len, ..
        } => write!(out, "mode={mode} offset={offset} len={len}"),
        Command::Fileattr { flags, .. } => write!(out, "fileattr={flags:#x}"),
        Command::EncodedWrite {
            offset,
            unencoded_file_len,
            unencoded_len,
            unencoded_offset,
            compression,
            encryption,
            data,
            ..
        } => write!(
            out,
            "offset={offset} len={} unencoded_file_len={unencoded_file_len} \
             unencoded_len={unencoded_len} unencoded_offset={unencoded_offset} \
             compression={compression} encryption={encryption}",
            data.len()
        ),
        Command::Mkfile { .. }
        | Command::Mkdir { .. }
        | Command::Mkfifo { .. }
        | Command::Mksock { .. }
        | Command::Unlink { .. }
        | Command::Rmdir { .. }
        | Command::End => Ok(()),
    }
}

impl Display for Timespec {
    /// Formats seconds since 1970, a point, and nine digits of nanoseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.sec, self.nsec)
    }
}

struct Escaped<'a>(&'a [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                escape_char(c, f)?;
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

fn escape_char(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match c {
        '\\' => f.write_str("\\\\"),
        ' ' => f.write_str("\\ "),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        // Characters that `escape_debug` leaves unchanged are printable; it would also escape quotes.
        '"' | '\'' => f.write_char(c),
        _ if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c)),
        _ if c.escape_debug().len() == 1 => f.write_char(c),
        _ => {
            // Other control characters, and characters that change how text is displayed, are escaped byte by byte.
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                write!(f, "\\x{byte:02x}")?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_fool_a_terminal_is_escaped() {
        assert_eq!(Escaped(b"\x1b[31m\x07").to_string(), r"\x1b[31m\x07");
        assert_eq!(
            Escaped("a\u{202e}b".as_bytes()).to_string(),
            r"a\xe2\x80\xaeb"
        );
        assert_eq!(Escaped("Größe".as_bytes()).to_string(), "Größe");
        assert_eq!(Escaped(b"\xc3").to_string(), r"\xc3");
    }

    #[test]
    fn every_operand_is_in_the_line() {
        let command = Command::Write {
            path: b"dir/file",
            offset: 4096,
            data: b"abc",
        };
        let text = line(&command).to_string();
        assert!(text.starts_with("write           ./dir/file"), "{text}");
        assert!(text.ends_with(" offset=4096 len=3"), "{text}");
    }

    #[test]
    fn the_end_has_no_path() {
        assert_eq!(line(&Command::End).to_string(), "end");
    }
}
