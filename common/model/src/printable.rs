//! Makes texts of peers printable.

/// Maximum number of bytes that are shown.
const MOST: usize = 2000;

/// Makes a peer's text safe for a terminal: without control characters and without characters that change the
/// reading order or are invisible, at most 2,000 bytes.
///
/// ```
/// assert_eq!(sendshot_model::printable("a\x1b[2Jb\n"), "a [2Jb ");
/// ```
#[must_use]
pub fn printable(text: &str) -> String {
    printable_within(text, MOST)
}

/// Does the same with another limit in bytes; a truncated text ends with `…`, in addition to the limit.
#[must_use]
pub fn printable_within(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most + '…'.len_utf8()));
    for c in text.chars() {
        if out.len() + c.len_utf8() > most {
            out.push('…');
            break;
        }
        out.push(if c.is_control() || steers(c) { ' ' } else { c });
    }
    out
}

/// Whether this is a Unicode character for direction or format, which is invisible itself.
fn steers(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\u{9b}31m"), "a [2Jb  31m");
        assert_eq!(printable("gp\u{202e}4pm.\u{2066}x\u{200b}"), "gp 4pm. x ");
        assert_eq!(printable("Fünf Töne — 五"), "Fünf Töne — 五");
    }

    #[test]
    fn a_peers_text_is_bounded() {
        assert!(printable(&"é".repeat(5000)).len() <= MOST + '…'.len_utf8());
        assert_eq!(printable_within("abcdef", 3), "abc…");
        assert_eq!(printable_within("abc", 3), "abc");
    }
}
