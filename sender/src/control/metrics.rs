//! What Prometheus is told: what `status` says, as numbers.

use std::sync::Arc;

use sendshot_proto::v1::last_push::Outcome;
use sendshot_proto::v1::{LastPush, ReplicationState, StatusResponse};
use sendshot_service::metrics::{self, Labels, Page, Render, flag};

use super::status;
use crate::shared::sender::Sender;

/// Serves the metrics where the configuration says; ends only by being dropped.
pub(crate) async fn watch(sender: Arc<Sender>) -> std::convert::Infallible {
    let of = Arc::clone(&sender);
    let render: Arc<Render> = Arc::new(move || {
        let sender = Arc::clone(&of);
        Box::pin(async move {
            let status = status::answer(&sender).await;
            let status = status.map_err(|e| e.message().to_owned())?;
            Ok(page(&sender, &status).text())
        })
    });
    let address = || sender.config().metrics;
    metrics::serve(address, render, sender.metrics_trouble()).await
}

fn page(sender: &Sender, status: &StatusResponse) -> Page {
    let mut page = Page::new("sender", env!("CARGO_PKG_VERSION"));
    pushes(&mut page, status);
    outcomes(&mut page, sender, &status.last);
    others(&mut page, status);
    page
}

fn pair(receiver: &str, volume: &str) -> Labels {
    vec![
        ("receiver", receiver.to_owned()),
        ("volume", volume.to_owned()),
    ]
}

fn pushes(page: &mut Page, status: &StatusResponse) {
    let current = || status.replications.iter().filter(|state| !state.other_disk);
    let mut gauge = |name: &str, help: &str, value: fn(&ReplicationState) -> Option<f64>| {
        let values = current()
            .filter_map(|state| Some((pair(&state.receiver, &state.volume), value(state)?)));
        page.gauge(name, help, values);
    };
    gauge(
        "push_fresh_timestamp_seconds",
        "When the receiver last got the present state, or the volume was found unchanged since; 0 if never",
        |state| Some(state.fresh_at as f64),
    );
    gauge(
        "push_max_age_seconds",
        "Age from which the newest copy is too old; absent for never",
        |state| (state.max_age > 0).then_some(state.max_age as f64),
    );
    gauge("push_failing", "Whether the last push failed", |state| {
        Some(flag(!state.trouble.is_empty()))
    });
    gauge("push_paused", "Whether the schedule is paused", |state| {
        Some(flag(state.paused_until != 0))
    });
    gauge(
        "push_next_run_timestamp_seconds",
        "When the next run of the schedule begins; absent if none is planned, or one is running",
        |state| (state.next_run > 0).then_some(state.next_run as f64),
    );
    gauge("push_running", "Whether a push is running", |state| {
        Some(flag(state.running.is_some()))
    });
    gauge(
        "push_running_applied_bytes",
        "Bytes of the running push that the receiver has applied",
        |state| Some(state.running.as_ref()?.applied_bytes as f64),
    );
    gauge(
        "push_running_stream_bytes",
        "Length of the stream of the running push; absent if it is not known",
        |state| {
            let total = state.running.as_ref()?.total_bytes;
            (total > 0).then_some(total as f64)
        },
    );
}

fn outcomes(page: &mut Page, sender: &Sender, last: &[LastPush]) {
    page.gauge(
        "push_last_end_timestamp_seconds",
        "When the last push ended, in whatever way",
        last.iter()
            .map(|last| (pair(&last.receiver, &last.volume), last.ended_at as f64)),
    );
    page.gauge(
        "push_last_duration_seconds",
        "How long the last push took; absent if it failed",
        last.iter().filter_map(|last| match &last.outcome {
            Some(Outcome::Done(done)) => Some((pair(&last.receiver, &last.volume), done.seconds)),
            Some(Outcome::Failed(_)) | None => None,
        }),
    );
    let counts = sender.counts().all();
    let with_outcome = |outcome: &str, labels: Labels| {
        let mut labels = labels;
        labels.push(("outcome", outcome.to_owned()));
        labels
    };
    page.counter(
        "pushes",
        "Pushes that have ended since the daemon started",
        counts.iter().flat_map(|((receiver, volume), count)| {
            let labels = || pair(receiver.as_str(), volume.as_str());
            [
                (with_outcome("done", labels()), count.done),
                (with_outcome("failed", labels()), count.failed),
            ]
        }),
    );
    page.counter(
        "push_stream_bytes",
        "Bytes of the streams that were pushed since the daemon started",
        counts.iter().map(|((receiver, volume), count)| {
            (pair(receiver.as_str(), volume.as_str()), count.stream_bytes)
        }),
    );
}

fn others(page: &mut Page, status: &StatusResponse) {
    page.gauge(
        "volume_unusable",
        "Whether the volume could not be pushed now",
        status.volumes.iter().map(|volume| {
            let labels = vec![("volume", volume.name.clone())];
            (labels, flag(!volume.problem.is_empty()))
        }),
    );
    page.gauge(
        "certificate_end_timestamp_seconds",
        "When this sender's certificate for the receiver expires; pushes renew it long before",
        status
            .receivers
            .iter()
            .filter(|receiver| receiver.certificate_ends > 0)
            .map(|receiver| {
                let labels = vec![("receiver", receiver.name.clone())];
                (labels, receiver.certificate_ends as f64)
            }),
    );
    let drills = || status.drills.iter();
    page.gauge(
        "drill_failed",
        "Whether the last restore drill failed",
        drills().map(|drill| {
            (
                pair(&drill.receiver, &drill.volume),
                flag(!drill.error.is_empty()),
            )
        }),
    );
    page.gauge(
        "drill_end_timestamp_seconds",
        "When the last restore drill ended",
        drills().map(|drill| (pair(&drill.receiver, &drill.volume), drill.ended_at as f64)),
    );
}
