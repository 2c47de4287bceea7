//! Arguments of the commands in remedies, quoted so that a user can paste them into a shell.

/// Quotes a word for a POSIX shell, if it needs that.
///
/// ```
/// assert_eq!(sendshot_model::shell::word("photos"), "photos");
/// assert_eq!(sendshot_model::shell::word("Ann's"), r"'Ann'\''s'");
/// ```
#[must_use]
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Writes a long option with its value, in a form in which a value like `-x` is not taken for an option.
///
/// ```
/// assert_eq!(sendshot_model::shell::option("--volume", "my photos"), "--volume 'my photos'");
/// assert_eq!(sendshot_model::shell::option("--volume", "-x"), "--volume=-x");
/// ```
#[must_use]
pub fn option(name: &str, value: &str) -> String {
    match value.starts_with('-') {
        true => format!("{name}={}", word(value)),
        false => format!("{name} {}", word(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_same_word() {
        for text in [
            "",
            "photos",
            "a b",
            "it's",
            "$(reboot)",
            "`x`",
            "ä",
            "~",
            "a\"b",
            "*",
            "#x",
        ] {
            let script = format!("printf %s {}", word(text));
            let said = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            assert_eq!(said.unwrap().stdout, text.as_bytes(), "{script}");
        }
    }
}
