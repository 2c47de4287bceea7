//! `sendshotctl pair`.

use std::str::FromStr;
use std::sync::Arc;

use sendshot_config::Address;
use sendshot_model::PeerName;
use sendshot_proto::answer::only_root;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1;

use super::request::usage;
use crate::connection::pair;
use crate::shared::sender::Sender;

pub(super) async fn answer(
    sender: &Arc<Sender>,
    command: v1::PairCommand,
    root: bool,
) -> Result<v1::PairResult, Problem> {
    only_root(root, "pairing")?;
    let address = Address::from_str(&command.address).map_err(|e| usage(&e))?;
    let name = match command.name.as_str() {
        "" => address.default_name().ok_or_else(|| {
            Problem::new(
                Kind::Usage,
                format!("`{address}` is not a name for a receiver"),
            )
            .remedy("give it one with --name")
        })?,
        name => PeerName::parse(name).map_err(|e| usage(&e))?,
    };
    let paired = pair::pair(sender, address, name, &command.token).await?;
    // Runs may have waited for that.
    sender.runs().try_again();
    sender.schedule_changed().notify_one();
    Ok(v1::PairResult {
        name: paired.name.to_string(),
        sender_name: paired.sender_name,
        file: paired.file.display().to_string(),
        problem: None,
    })
}
