//! The question for a daemon's history.

use jiff::Timestamp;
use sendshot_model::history::Selection;

use crate::malformed::Malformed;
use crate::v1;

impl TryFrom<v1::HistoryRequest> for Selection {
    type Error = Malformed;

    fn try_from(message: v1::HistoryRequest) -> Result<Self, Malformed> {
        let since = message.since.map(Timestamp::from_second).transpose();
        let named = |name: String| Some(name).filter(|name| !name.is_empty());
        let peer = named(message.peer).map(|name| name.parse()).transpose();
        let volume = named(message.volume).map(|name| name.parse()).transpose();
        Ok(Self {
            since: since.map_err(|_| Malformed::Value("since"))?,
            peer: peer?,
            volume: volume?,
        })
    }
}

impl From<&Selection> for v1::HistoryRequest {
    fn from(selection: &Selection) -> Self {
        let text = |name: Option<String>| name.unwrap_or_default();
        Self {
            since: selection.since.map(Timestamp::as_second),
            peer: text(selection.peer.as_ref().map(ToString::to_string)),
            volume: text(selection.volume.as_ref().map(ToString::to_string)),
        }
    }
}
