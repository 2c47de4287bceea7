//! Explains to the user what a push costs, where it costs more than the changes alone.

use sendshot_engine::capture::recapture::Effort;
use sendshot_engine::diff::rule::Kinship;
use sendshot_engine::stream::measure::Size;
use sendshot_model::human;

/// The measurements of a dry run.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// How the new snapshot is related to its parent; `None` for a full send.
    pub kinship: Option<Kinship>,
    /// How much metadata its capture read.
    pub effort: Effort,
    /// Inodes of the snapshot.
    pub inodes: u64,
    /// Inodes changed since the parent, judged by their transactions.
    pub changed: u64,
    pub size: Size,
}

/// Explains why all metadata was compared, if it was, and what that costs.
pub fn notes(found: &Found) -> Vec<String> {
    let data = human::bytes_human(found.size.data);
    let inodes = found.inodes;
    match (found.kinship, found.effort) {
        (Some(Kinship::Filesystem | Kinship::None), effort) => vec![
            format!(
                "the volume was replaced since (by a rollback, for example), so all its metadata is compared: {} of {inodes} inodes were read again",
                read_again(effort, inodes),
            ),
            format!(
                "{data} of data are sent: new data, and data that cannot be compared safely, such as the content of small files"
            ),
        ],
        (Some(Kinship::Lineage), Effort::Changes(read)) if is_rewritten(read, found) => vec![
            format!(
                "most leaves of the metadata were rewritten without a change, as by a balance: {read} of {inodes} inodes were read again, {} changed",
                found.changed
            ),
            format!(
                "{data} of data are sent: new data, and data moved within changed files, which cannot be compared"
            ),
        ],
        (Some(Kinship::Lineage) | None, Effort::Changes(_) | Effort::Full) => Vec::new(),
    }
}

fn read_again(effort: Effort, inodes: u64) -> u64 {
    match effort {
        Effort::Full => inodes,
        Effort::Changes(read) => read.min(inodes),
    }
}

/// Whether metadata was rewritten without changes. Leaves hold some dozens of inodes, so a few changes have many
/// read again; more than half of all, and four times as many as changed, have another cause.
fn is_rewritten(read: u64, found: &Found) -> bool {
    read > found.inodes / 2 && read / 4 > found.changed && read > SMALL
}

/// Inodes that one leaf can hold, approximately: below that nothing can be concluded.
const SMALL: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kinship: Option<Kinship>, effort: Effort, changed: u64) -> Found {
        Found {
            kinship,
            effort,
            inodes: 10_000,
            changed,
            size: Size {
                bytes: 5 << 20,
                commands: 10,
                data: 3 << 20,
            },
        }
    }

    #[test]
    fn rollbacks_and_balances_are_noted_with_figures() {
        for (found, texts) in [
            (
                found(Some(Kinship::Filesystem), Effort::Full, 10_000),
                ["replaced", "10000 of 10000 inodes"],
            ),
            (
                found(Some(Kinship::Lineage), Effort::Changes(9_000), 12),
                ["balance", "9000 of 10000 inodes"],
            ),
        ] {
            let said = notes(&found).join("\n");
            for text in texts.iter().chain(&["3.0 MiB"]) {
                assert!(said.contains(text), "{said}");
            }
        }
    }

    #[test]
    fn normal_costs_have_no_note() {
        let kin = Some(Kinship::Lineage);
        for found in [
            found(None, Effort::Full, 10_000),
            found(kin, Effort::Changes(40), 2),
            found(kin, Effort::Changes(9_000), 8_000),
        ] {
            assert_eq!(notes(&found), Vec::<String>::new());
        }
    }
}
