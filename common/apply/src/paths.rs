//! Checks the paths of a stream before they are passed to the kernel.

/// Maximum length of a path in bytes: the kernel accepts 4096 including the final NUL.
const PATH_MAX: usize = 4095;
/// Maximum length of a directory entry's name in bytes.
const NAME_MAX: usize = 255;

/// Reason why a path from a stream is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty where the subvolume's root is not valid.
    #[error("the path is empty")]
    Empty,
    /// It begins with a slash.
    #[error("the path is absolute")]
    Absolute,
    /// It has two slashes in a row, or one at its end.
    #[error("a component of the path is empty")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("a component of the path is \".\" or \"..\"")]
    Dots,
    /// It has a NUL byte.
    #[error("the path has a NUL byte")]
    Nul,
    /// A component is longer than 255 bytes.
    #[error("a component of the path is longer than {NAME_MAX} bytes")]
    LongName,
    /// The whole path is longer than 4095 bytes.
    #[error("the path is longer than {PATH_MAX} bytes")]
    LongPath,
    /// It has several components where a single name is required.
    #[error("the name has a slash")]
    NotAName,
}

/// A checked path: the directory (empty: the subvolume's root) and the name in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirEntry<'a> {
    pub(crate) dir: &'a [u8],
    pub(crate) name: &'a [u8],
}

/// Checks a path and splits off its last component.
pub(crate) fn split(path: &[u8]) -> Result<DirEntry<'_>, PathError> {
    check(path)?;
    Ok(match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => DirEntry {
            dir: &path[..slash],
            name: &path[slash + 1..],
        },
        None => DirEntry {
            dir: b"",
            name: path,
        },
    })
}

/// Checks that `name` can be a single directory entry.
pub(crate) fn single(name: &[u8]) -> Result<&[u8], PathError> {
    let place = split(name)?;
    if !place.dir.is_empty() {
        return Err(PathError::NotAName);
    }
    Ok(place.name)
}

/// Whether `path` is `top` or is beneath it.
pub(crate) fn is_at_or_beneath(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn check(path: &[u8]) -> Result<(), PathError> {
    match path.first() {
        None => return Err(PathError::Empty),
        Some(b'/') => return Err(PathError::Absolute),
        Some(_) => {}
    }
    if path.len() > PATH_MAX {
        return Err(PathError::LongPath);
    }
    if path.contains(&0) {
        return Err(PathError::Nul);
    }
    path.split(|b| *b == b'/').try_for_each(check_component)
}

fn check_component(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::EmptyComponent),
        b"." | b".." => Err(PathError::Dots),
        _ if name.len() > NAME_MAX => Err(PathError::LongName),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_paths_split_at_the_last_slash() {
        let place = |dir, name| Ok(DirEntry { dir, name });
        assert_eq!(split(b"a"), place(b"", b"a"));
        assert_eq!(split(b"a/b/c"), place(b"a/b", b"c"));
        assert_eq!(split(b"..a/...\xff"), place(b"..a", b"...\xff"));
        assert_eq!(split(&[b'n'; 255]).map(|p| p.name.len()), Ok(255));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let long = [b'n'; 256];
        let deep = b"d/".repeat(2048);
        let cases: [(&[u8], PathError); 12] = [
            (b"", PathError::Empty),
            (b"/", PathError::Absolute),
            (b"/etc/passwd", PathError::Absolute),
            (b"a//b", PathError::EmptyComponent),
            (b"a/", PathError::EmptyComponent),
            (b".", PathError::Dots),
            (b"..", PathError::Dots),
            (b"a/../b", PathError::Dots),
            (b"a/./b", PathError::Dots),
            (b"a\0b", PathError::Nul),
            (&long, PathError::LongName),
            (&deep, PathError::LongPath),
        ];
        for (path, expected) in cases {
            assert_eq!(split(path), Err(expected), "{path:?}");
        }
    }

    #[test]
    fn a_single_name_has_no_slash() {
        assert_eq!(single(b"s1"), Ok(&b"s1"[..]));
        assert_eq!(single(b"a/s1"), Err(PathError::NotAName));
        assert_eq!(single(b".."), Err(PathError::Dots));
    }

    #[test]
    fn beneath_goes_by_components() {
        assert!(is_at_or_beneath(b"a/b", b"a"));
        assert!(is_at_or_beneath(b"a", b"a"));
        assert!(!is_at_or_beneath(b"ab", b"a"));
        assert!(!is_at_or_beneath(b"a", b"a/b"));
    }
}
