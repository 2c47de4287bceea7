//! The pages of configuration files, section 5, made of the commented examples: a paragraph of comment explains the keys that
//! follow it.

use std::fmt::Write;
use std::io;
use std::path::Path;

use crate::Page;
use crate::commands::{escaped, of_page};

const SECTION: u8 = 5;

/// The pages, their examples, and what the files are.
pub const EXAMPLES: [(&str, &str, &str); 2] = [
    (
        "sendshot-sender.toml",
        "sender.toml",
        "configuration of the sending host",
    ),
    (
        "sendshot-receiver.toml",
        "receiver.toml",
        "configuration of the receiving host",
    ),
];

/// Makes the page of a file from its commented example.
///
/// # Errors
/// I/O errors of the prose.
pub fn page(name: &str, what: &str, example: &str, prose: &Path) -> io::Result<Page> {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = String::new();
    let title = escaped(&name.to_uppercase());
    // Writing into a string cannot fail.
    let _ = writeln!(
        text,
        ".TH {title} {SECTION} \"\" \"Sendshot {version}\" Sendshot\n.SH NAME\n{} \\- {what}",
        escaped(name)
    );
    let file = name.trim_start_matches("sendshot-");
    let _ = writeln!(text, ".SH SYNOPSIS\n.I /etc/sendshot/{}", escaped(file));
    let _ = writeln!(text, ".SH DESCRIPTION");
    blocks(example, &mut text);
    let mut text = text.into_bytes();
    text.extend(of_page(prose, name)?);
    text.extend(b".SH \"SEE ALSO\"\n.BR sendshot\\-receiver (8),\n.BR sendshot\\-sender (8),\n.BR sendshotctl (8)\n");
    Ok(Page {
        name: name.to_owned(),
        section: SECTION,
        text,
    })
}

fn blocks(example: &str, text: &mut String) {
    let mut is_in_keys = false;
    let mut begins = true;
    for line in example.lines() {
        let key = as_key(line);
        if is_in_keys && key.is_none() {
            *text += ".fi\n.RE\n";
            is_in_keys = false;
            begins = true;
        }
        match (key, line.trim().strip_prefix('#')) {
            (Some(key), _) => {
                if !is_in_keys {
                    *text += ".RS\n.nf\n";
                    is_in_keys = true;
                }
                *text += &format!("{}\n", escaped(key));
            }
            (None, Some(comment)) => {
                if begins {
                    *text += ".PP\n";
                    begins = false;
                }
                *text += &format!("{}\n", escaped(comment.trim()));
            }
            (None, None) => begins = true,
        }
    }
    if is_in_keys {
        *text += ".fi\n.RE\n";
    }
}

/// The text of a line with a key or a table, also of one that is commented out.
fn as_key(line: &str) -> Option<&str> {
    let bare = line.trim().trim_start_matches('#').trim();
    let name = bare.split([' ', '=']).next().unwrap_or_default();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    let is_key = !name.is_empty()
        && name.chars().all(is_name)
        && bare[name.len()..].trim_start().starts_with('=');
    let is_table = bare.starts_with('[') && bare.ends_with(']') && !bare.contains(' ');
    (is_key || is_table).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_also_commented_out() {
        assert_eq!(as_key("keep = \"all\""), Some("keep = \"all\""));
        assert_eq!(
            as_key("# min_free = \"20 GiB\""),
            Some("min_free = \"20 GiB\"")
        );
        assert_eq!(as_key("[senders.nas1]"), Some("[senders.nas1]"));
        for comment in [
            "# Which copies are kept = all.",
            "",
            "# [senders.X] is a table",
        ] {
            assert_eq!(as_key(comment), None, "{comment}");
        }
    }

    #[test]
    fn a_comment_explains_the_keys_after_it() {
        let mut text = String::new();
        blocks(
            "# One.\n# Two.\nkey = 1\n# other = 2\n\n# Three.\n",
            &mut text,
        );
        assert_eq!(
            text,
            ".PP\nOne.\nTwo.\n.RS\n.nf\nkey = 1\nother = 2\n.fi\n.RE\n.PP\nThree.\n"
        );
    }
}
