//! Texts of others, made fit to be shown.

/// Most bytes of a text that are shown.
const MOST: usize = 2000;

/// A peer's text made fit for a terminal: no control characters, nothing that turns the order of
/// what is read or cannot be seen, at most 2,000 bytes.
///
/// ```
/// assert_eq!(sendshot_model::printable("a\x1b[2Jb\n"), "a [2Jb ");
/// ```
#[must_use]
pub fn printable(text: &str) -> String {
    printable_within(text, MOST)
}

/// The same, with another limit in bytes; what is cut ends with `…`, which comes on top.
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

/// Unicode's characters for direction and format, which show nothing themselves.
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
