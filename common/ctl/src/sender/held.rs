//! The part of `sendshotctl list` about the receivers' copies.

use sendshot_model::human;
use sendshot_proto::v1::HeldByReceiver;
use serde::Serialize;

use crate::output::{self, Output, table};

#[derive(Serialize)]
struct HeldJson {
    volume: String,
    receiver: String,
    /// The receiver's disk, if it reports one.
    root: Option<String>,
    /// End of the push that reported it.
    as_of: Option<String>,
    count: u64,
    /// In order; without the oldest if they are very many.
    copies: Vec<String>,
}

/// Shows a line for each volume and disk.
pub fn summary(held: Vec<HeldByReceiver>, output: &Output) {
    if held.is_empty() || output.is_json() {
        return;
    }
    let row = |held: HeldByReceiver| {
        vec![
            held.volume,
            held.receiver,
            output::short_id(&output::uuid(&held.root_id)),
            held.count.to_string(),
            held.oldest,
            held.newest,
            as_of(held.as_of),
        ]
    };
    let rows = held.into_iter().map(row).collect();
    let titles = [
        "volume", "receiver", "disk", "copies", "oldest", "newest", "as of",
    ];
    let text = table(&titles, rows);
    output.result(&(), || {
        format!("\nAt the receivers, as of the last push\n{text}")
    });
}

/// Shows every copy, the oldest first.
pub fn copies(held: Vec<HeldByReceiver>, output: &Output) {
    if held.is_empty() {
        output.note("no push has reported yet what the receivers hold");
    }
    for held in held {
        let json = HeldJson {
            root: Some(output::uuid(&held.root_id)).filter(|_| !held.root_id.is_empty()),
            as_of: output::time_json(held.as_of),
            volume: held.volume,
            receiver: held.receiver,
            count: held.count,
            copies: held.names,
        };
        output.result(&json, || {
            let disk = json.root.as_deref().map(output::short_id);
            let disk = disk.map_or_else(String::new, |disk| format!(", disk {disk}"));
            let mut text = format!(
                "{}:{}{disk}: {} copies as of {}\n",
                json.receiver,
                json.volume,
                json.count,
                as_of(held.as_of)
            );
            let listed = u64::try_from(json.copies.len()).unwrap_or(u64::MAX);
            if listed < json.count {
                text += &format!("  ({} older ones)\n", json.count - listed);
            }
            for name in &json.copies {
                text += &format!("  {name}\n");
            }
            text
        });
    }
}

fn as_of(seconds: i64) -> String {
    let ago = human::duration(output::age(seconds));
    format!("{} ({ago} ago)", output::time(seconds))
}
