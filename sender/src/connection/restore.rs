//! The calls that bring copies back.

use std::time::Duration;

use sendshot_proto::hello::Support;
use sendshot_proto::restore::{FetchRequest, Fetched, Parts, Volumes};
use sendshot_proto::v1;
use tonic::Streaming;

use crate::connection::call::{failed, within};
use crate::connection::error::Error;
use crate::connection::link::Link;

/// Longest wait for the list of copies: the receiver opens every copy, possibly from a cold disk.
const LIST_DEADLINE: Duration = Duration::from_secs(120);

/// Most bytes of a list: far more than a large host has.
const MAX_LIST: u64 = 256 * 1024 * 1024;

/// The messages of a fetch.
#[derive(Debug)]
pub struct FetchStream {
    messages: Streaming<v1::FetchResponse>,
    /// For error messages.
    address: String,
}

impl FetchStream {
    /// Waits for the next message.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Failure`] for a failure that the receiver reports.
    pub async fn next(&mut self) -> Result<Fetched, Error> {
        match self.messages.message().await {
            Ok(Some(message)) => match Fetched::try_from(message).map_err(Error::invalid)? {
                Fetched::Failure(failure) => Err(Error::Failure(failure)),
                other => Ok(other),
            },
            Ok(None) => Err(Error::invalid("it ended the fetch without a result")),
            Err(status) => Err(failed(&self.address, &status)),
        }
    }
}

impl Link {
    /// Checks that the receiver can send copies back.
    ///
    /// # Errors
    /// [`Error::TooOld`].
    pub fn require_restore(&self) -> Result<(), Error> {
        match self.restore() {
            Support::Has => Ok(()),
            Support::Lacks => Err(Error::TooOld {
                address: self.address().to_owned(),
                software: self.software().to_owned(),
            }),
        }
    }

    /// Asks for the volumes and copies of this sender: all of them, or those of the volume called `name` there.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn volumes(&mut self, name: Option<&str>) -> Result<Volumes, Error> {
        let address = self.address().to_owned();
        let request = v1::VolumesRequest {
            name: name.unwrap_or_default().to_owned(),
        };
        let listed = async {
            let client = self.client_reading(MAX_LIST);
            let answer = client.volumes(request).await;
            let mut messages = answer
                .map_err(|status| failed(&address, &status))?
                .into_inner();
            let mut parts = Parts::default();
            loop {
                match messages.message().await {
                    Ok(Some(part)) => parts.add(part).map_err(Error::invalid)??,
                    Ok(None) => return parts.finish().map_err(Error::invalid),
                    Err(status) => return Err(failed(&address, &status)),
                }
            }
        };
        within(&address, LIST_DEADLINE, listed).await
    }

    /// Begins to fetch a copy. At most `most` bytes are read from the connection.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch(&mut self, request: FetchRequest) -> Result<FetchStream, Error> {
        let address = self.address().to_owned();
        let request = v1::FetchRequest::from(request);
        match self.client_unlimited().fetch(request).await {
            Ok(messages) => Ok(FetchStream {
                messages: messages.into_inner(),
                address,
            }),
            Err(status) => Err(failed(&address, &status)),
        }
    }
}
