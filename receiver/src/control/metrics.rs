//! What Prometheus is told: what `status` says, as numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use sendshot_proto::confirm;
use sendshot_proto::v1::{PartialState, ReceivedVolume, ReceiverStatusResponse};
use sendshot_service::metrics::{self, Count, Labels, Page, Render, flag};

use super::status;
use crate::shared::receiver::Receiver;

/// Serves the metrics where the configuration says; ends only by being dropped.
pub(crate) async fn watch(receiver: &Arc<Receiver>) -> std::convert::Infallible {
    let of = Arc::clone(receiver);
    let render: Arc<Render> = Arc::new(move || {
        let receiver = Arc::clone(&of);
        Box::pin(async move {
            let status = status::answer(&receiver).await;
            let status = status.map_err(|problem| problem.message)?;
            Ok(page(&receiver, &status).text())
        })
    });
    let address = || receiver.config().metrics;
    metrics::serve(address, render, receiver.metrics_trouble()).await
}

fn page(receiver: &Receiver, status: &ReceiverStatusResponse) -> Page {
    let mut page = Page::new("receiver", env!("CARGO_PKG_VERSION"));
    disk(&mut page, status);
    volumes(&mut page, &status.volumes);
    transfers(&mut page, &status.incoming);
    page.gauge(
        "volumes_unreadable",
        "Volumes whose copies could not be read; there are no metrics of them",
        [(Labels::new(), status.unreadable.len() as f64)],
    );
    let counts = receiver.counts().all();
    let mut counter = |name: &str, help: &str, value: fn(&Count) -> u64| {
        let values = counts
            .iter()
            .map(|(sender, count)| (vec![("sender", sender.as_str().to_owned())], value(count)));
        page.counter(name, help, values);
    };
    counter(
        "received_copies",
        "Copies that were committed since the daemon started",
        |count| count.done,
    );
    counter(
        "received_failures",
        "Pushes that ended without a copy since the daemon started",
        |count| count.failed,
    );
    counter(
        "received_stream_bytes",
        "Bytes of the streams of those copies",
        |count| count.stream_bytes,
    );
    page
}

fn disk(page: &mut Page, status: &ReceiverStatusResponse) {
    let mut gauge = |name: &str, help: &str, value: Option<f64>| {
        page.gauge(name, help, value.map(|value| (Labels::new(), value)));
    };
    gauge(
        "disk_readable",
        "Whether the disk of the copies is present and can be read; if not, there are no metrics of the copies",
        Some(flag(status.is_read && status.disk_problem.is_empty())),
    );
    let of_disk = |bytes: u64| status.is_read.then_some(bytes as f64);
    gauge("disk_free_bytes", "Free space", of_disk(status.free_bytes));
    gauge("disk_size_bytes", "Size", of_disk(status.total_bytes));
    gauge(
        "disk_min_free_bytes",
        "Free space below which no push begins",
        of_disk(status.min_free_bytes),
    );
    gauge(
        "clock_good",
        "Whether this host's clock is good enough to delete copies by",
        Some(flag(status.clock_trouble.is_empty())),
    );
}

fn volumes(page: &mut Page, volumes: &[ReceivedVolume]) {
    let mut gauge = |name: &str, help: &str, value: fn(&ReceivedVolume) -> Option<f64>| {
        let labels = |volume: &ReceivedVolume| -> Labels {
            vec![
                ("sender", volume.sender.clone()),
                ("volume", volume.volume.clone()),
            ]
        };
        let values = volumes
            .iter()
            .filter_map(|volume| Some((labels(volume), value(volume)?)));
        page.gauge(name, help, values);
    };
    gauge("copies", "Copies of the volume", |volume| {
        Some(volume.copies as f64)
    });
    gauge(
        "copy_newest_timestamp_seconds",
        "When the newest copy was committed; 0 if there is none",
        |volume| Some(volume.newest_at as f64),
    );
    gauge(
        "copy_confirmed_timestamp_seconds",
        "When the sender last reported that the volume is unchanged; 0 if never",
        |volume| Some(volume.confirmed_at as f64),
    );
    gauge(
        "copy_heard_timestamp_seconds",
        "The later of both times, without those in the future, which were noted by a wrong clock",
        |volume| {
            let now = jiff::Timestamp::now().as_second();
            Some(confirm::heard_at(volume, now) as f64)
        },
    );
    gauge(
        "copy_max_age_seconds",
        "Age of the newest copy or report from which silence is an alarm; absent for never",
        |volume| (volume.max_age > 0).then_some(volume.max_age as f64),
    );
    gauge(
        "copy_paused",
        "Whether the sender's schedule was paused when it last reported",
        |volume| Some(flag(volume.paused_until != 0)),
    );
    gauge(
        "copies_undeletable",
        "Copies that no rule may delete until an administrator decides",
        |volume| {
            let counts = volume.undeletable.iter().map(|of| of.count);
            Some(counts.sum::<u64>() as f64)
        },
    );
    gauge(
        "retention_stopped",
        "Whether none of the volume's copies may be deleted now",
        |volume| Some(flag(!volume.trouble.is_empty())),
    );
    gauge(
        "retention_asks",
        "Whether the next deletion by the rule must be confirmed",
        |volume| Some(flag(!volume.asks.is_empty())),
    );
    gauge(
        "retention_has_rule",
        "Whether a rule deletes copies of the volume",
        |volume| Some(flag(!volume.rule.starts_with("all;"))),
    );
}

fn transfers(page: &mut Page, incoming: &[PartialState]) {
    let mut by_state: BTreeMap<&str, usize> = ["running", "waiting", "interrupted"]
        .into_iter()
        .map(|state| (state, 0))
        .collect();
    for partial in incoming {
        *by_state.entry(&partial.state).or_default() += 1;
    }
    page.gauge(
        "transfers",
        "Transfers that are not committed, by state: running, waiting for the sender, or interrupted with checkpoints",
        by_state
            .into_iter()
            .map(|(state, count)| (vec![("state", state.to_owned())], count as f64)),
    );
}
