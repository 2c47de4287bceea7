//! Refuses a call with a remedy. A gRPC status has room for one sentence; the remedy is sent beside it as
//! metadata.

use sendshot_model::printable;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata key of the remedy; the suffix `-bin` permits any UTF-8.
const REMEDY: &str = "sendshot-remedy-bin";

/// Makes a status with a remedy. An older peer shows only the message.
pub fn refusal(code: Code, message: impl Into<String>, remedy: &str) -> Status {
    let mut status = Status::new(code, message);
    if !remedy.is_empty() {
        let value = MetadataValue::from_bytes(remedy.as_bytes());
        status.metadata_mut().insert_bin(REMEDY, value);
    }
    status
}

/// Returns the remedy of the peer's refusal; empty if it has none.
pub fn remedy(status: &Status) -> String {
    status
        .metadata()
        .get_bin(REMEDY)
        .and_then(|value| value.to_bytes().ok())
        .map(|bytes| printable(&String::from_utf8_lossy(&bytes)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_travels_beside_the_message() {
        let status = refusal(
            Code::PermissionDenied,
            "revoked",
            "run `x` – then\x1b[2J `y`",
        );
        assert_eq!(status.message(), "revoked");
        let headers = status.into_http::<()>().into_parts().0.headers;
        let received = Status::from_header_map(&headers).unwrap();
        assert_eq!(remedy(&received), "run `x` – then [2J `y`");
    }

    #[test]
    fn without_one_there_is_none() {
        assert_eq!(remedy(&Status::internal("x")), "");
        let empty = refusal(Code::Internal, "x", "");
        assert!(empty.metadata().is_empty());
    }
}
