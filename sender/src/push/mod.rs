//! The way of a push: its stages in order. Each is a module of its name. From negotiate to acknowledge
//! they are run by [`crate::push::job`], again and again if need be ([`crate::push::retry`]).
//!
//! | stage | module |
//! |---|---|
//! | snapshot | [`crate::push::stages::snapshot`] |
//! | negotiate | [`crate::push::stages::negotiate`] |
//! | (resume, if one broke off) | [`crate::push::job`] by [`crate::push::stages::resume`] and [`crate::state::segment_log`] |
//! | (adopt, capture, with our engine) | [`crate::push::stages::prepare`] runs [`crate::push::stages::adopt`], [`crate::push::stages::capture`] |
//! | plan | [`crate::push::stages::prepare`] asks; [`crate::decide::parent`] decides by [`crate::volume::lineage`], [`crate::decide::parent_sendshot`] by [`crate::push::stages::candidates`] |
//! | generate | [`crate::push::generate`] |
//! | transfer, apply, commit, acknowledge | [`crate::push::stages::transfer`], and the receiver |
//! | record | [`crate::push::stages::record`] |
//! | prune | [`crate::retained::prune`] chooses |
//! | (report) | here the user is told |
//! | release | [`crate::push::stages::release`] |

mod context;
pub mod dry_run;
pub mod error;
pub mod generate;
mod job;
pub mod progress;
pub mod request;
pub mod retry;
pub mod series;
pub mod stages;

use std::sync::Arc;

use sendshot_sys::filesystem;
use sendshot_sys::subvolume::{self};

use crate::decide::parent::Wish;
use crate::decide::retention;
use crate::push::job::{Job, Stopped};
use crate::push::progress::Listener;
use crate::push::retry::Patience;
use crate::push::stages::record::Superfluous;
use crate::push::stages::release::Release;
use crate::push::stages::resume::{self, Interrupted};
use crate::shared::blocking::blocking;
use crate::shared::running::Running;
use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::journal::{self, State};
use crate::volume::engine;
use crate::volume::resolve::Volume;
use sendshot_model::Engine;
use sendshot_proto::problem::JOURNAL;
use sendshot_proto::report::Report;

use crate::push::context::{Push, another, begin_patiently};
use crate::push::error::Error;
use crate::push::request::Request;

/// Runs a push until its user can be told how it ended. What is to be done after that is returned
/// with the outcome; `None` if the push has not come so far that there is anything.
///
/// An earlier push of the volume to this receiver that broke off is completed first, if it can be;
/// if the volume has changed since, what it is now follows.
///
/// A push that fails leaves nothing but what the next one can go on from, or what the receiver may
/// have committed.
pub async fn run(
    sender: Arc<Sender>,
    request: Request,
    volume: Volume,
    running: Arc<Running>,
    listener: Listener,
) -> (Result<Report, Error>, Option<Release>) {
    let usual = sender.engine(&volume.key.name);
    let engine = match engine::choose(request.engine, usual, &volume) {
        Ok(engine) => engine,
        Err(e) => return (Err(e.into()), None),
    };
    let mut patience = Patience::new(request.retry_for, sender.config().retry_for);
    let told = (&running, &listener);
    let begun = begin_patiently(&sender, &request, engine, &volume, told, &mut patience);
    let mut push = match begun.await {
        Ok(push) => push,
        Err(error) => return (Err(error), None),
    };
    let skipped: Vec<String> = volume
        .skipped
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let known = sender.history().left_out(&volume.key.name);
    let is_new = |path: &&String| !known.contains(*path);
    let newly_skipped: Vec<String> = skipped.iter().filter(is_new).cloned().collect();
    let (outcome, superfluous) = push.carry_out(volume, &request, &mut patience).await;
    let outcome = outcome.map(|report| Report {
        skipped,
        newly_skipped,
        ..report
    });
    (outcome, Some(push.release(superfluous)))
}

impl Push {
    /// Completes what broke off, and sends the present state.
    async fn carry_out(
        &mut self,
        volume: Volume,
        request: &Request,
        patience: &mut Patience,
    ) -> (Result<Report, Error>, Superfluous) {
        let mut completed = None;
        match self.interrupted(&volume, request).await {
            Ok(Some(interrupted)) => {
                let mut job = Job::resumed(interrupted, &self.sender);
                match job.run(self, request, patience).await {
                    Ok((report, superfluous)) => {
                        if self.is_unchanged(&volume, &job).await {
                            return (Ok(report), superfluous);
                        }
                        Release::new(Arc::clone(&self.state), superfluous)
                            .carry_out()
                            .await;
                        completed = Some(report);
                    }
                    Err(Stopped::StartOver) => {}
                    Err(Stopped::Failed(error)) => {
                        return (Err(error), Superfluous::default());
                    }
                }
            }
            Ok(None) => {}
            Err(error) => return (Err(error), Superfluous::default()),
        }
        match self.send_present_state(volume, request, patience).await {
            Ok((report, superfluous)) => (Ok(report.after(completed)), superfluous),
            Err(error) => (Err(error), Superfluous::default()),
        }
    }

    async fn send_present_state(
        &mut self,
        volume: Volume,
        request: &Request,
        patience: &mut Patience,
    ) -> Result<(Report, Superfluous), Error> {
        self.let_go_of_interrupted().await?;
        let subject = self.snapshot(volume).await?;
        let mut job = Job::fresh(subject);
        match job.run(self, request, patience).await {
            Ok(done) => Ok(done),
            Err(Stopped::Failed(error)) => Err(error),
            // Only what was interrupted before is started over.
            Err(Stopped::StartOver) => Err(Error::CameToNothing),
        }
    }

    /// The push that broke off and is to be completed; none if the user wants something else.
    async fn interrupted(
        &self,
        volume: &Volume,
        request: &Request,
    ) -> Result<Option<Interrupted>, Error> {
        if request.wish != Wish::Auto || self.engine != Engine::Sendshot {
            return Ok(None);
        }
        let (state, sender) = (Arc::clone(&self.state), Arc::clone(&self.sender));
        let chain = (sender.id(), volume.key.id, self.link.receiver());
        let running = move |push| sender.table().contains(push);
        blocking("resume", move || resume::find(&state, chain, running))
            .await?
            .map_err(Error::volume(JOURNAL))
    }

    /// Lets go of pushes of this volume to this receiver that broke off and will not be completed.
    /// What the receiver may have committed stays until it has told.
    async fn let_go_of_interrupted(&self) -> Result<(), Error> {
        let (state, sender) = (Arc::clone(&self.state), Arc::clone(&self.sender));
        let chain = (self.sender.id(), self.key.id, self.link.receiver());
        let root = self.root;
        let work = move || -> std::io::Result<()> {
            for record in journal::records(state.pushes())? {
                let mine = retention::chain(&record) == chain;
                let unfinished = record.state == State::Sending && record.is_resumable();
                // What waits for another of its disks is gone on with when that one is back.
                let elsewhere = record.root.is_some() && root.is_some() && record.root != root;
                if mine && unfinished && !elsewhere && !sender.table().contains(record.push) {
                    tracing::info!(push = %record.push, "an interrupted push is let go: another one takes its place");
                    sender.take_memory(record.push);
                    discard::let_go(&state, &record)?;
                }
            }
            Ok(())
        };
        blocking("let-go", work)
            .await?
            .map_err(Error::volume(JOURNAL))
    }

    /// Whether a volume is what it was when the snapshot of a push was taken of it. In doubt it is
    /// not.
    async fn is_unchanged(&self, volume: &Volume, job: &Job) -> bool {
        let snapshot = job.snapshot_info();
        let (uuid, otransid) = (snapshot.parent_uuid, snapshot.otransid);
        let Ok(fd) = another(&volume.fd) else {
            return false;
        };
        let work = move || -> std::io::Result<bool> {
            filesystem::sync(&fd)?;
            let now = subvolume::info(&fd)?;
            Ok(now.uuid == uuid && now.ctransid <= otransid)
        };
        matches!(blocking("compare", work).await, Ok(Ok(true)))
    }
}
