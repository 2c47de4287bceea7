//! `sender.toml` in effect.

use crate::schedule::{Schedule, When};
use crate::sender::{DEFAULT_KEEP, DEFAULT_MAX_AGE, SenderConfig, VolumeConfig, default_jitter};
use crate::show::{Lines, list, span};

impl SenderConfig {
    /// The configuration as a file with every setting, the defaults marked.
    #[must_use]
    pub fn show(&self) -> String {
        let default = Self::default();
        let mut lines = Lines::default();
        lines.duration("retry_for", self.retry_for, default.retry_for);
        lines.duration("stall_after", self.stall_after, default.stall_after);
        lines.duration("resume_keep", self.resume_keep, default.resume_keep);
        lines.text(
            "resume_min_free",
            format_args!("{}%", self.resume_min_free),
            self.resume_min_free == default.resume_min_free,
        );
        lines.raw(
            "max_parallel",
            self.max_parallel,
            self.max_parallel == default.max_parallel,
        );
        match self.metrics {
            Some(address) => lines.text("metrics", address, false),
            None => lines.absent("metrics", "off"),
        }
        for (name, volume) in &self.volumes {
            lines.table(&["volumes", name.as_str()]);
            show_volume(&mut lines, volume);
        }
        lines.0
    }
}

fn show_volume(lines: &mut Lines, volume: &VolumeConfig) {
    match &volume.snapshots {
        None => lines.text("path", volume.path.display(), false),
        Some(pattern) => lines.text("snapshots", pattern, false),
    }
    let receivers = volume.receivers.iter().map(ToString::to_string);
    lines.raw("receivers", list(receivers), volume.receivers.is_empty());
    lines.raw("keep", volume.keep, volume.keep == DEFAULT_KEEP);
    lines.raw("pin_parent", volume.pin_parent, !volume.pin_parent);
    match &volume.schedule {
        None => lines.absent("schedule", "none; pushed by `sendshotctl push` only"),
        Some(schedule) => show_schedule(lines, schedule),
    }
    let is_default = volume.max_age == Some(DEFAULT_MAX_AGE);
    let max_age = volume.max_age.map_or_else(|| "never".to_owned(), span);
    lines.text("max_age", max_age, is_default);
}

fn show_schedule(lines: &mut Lines, schedule: &Schedule) {
    match &schedule.when {
        When::Every(interval) => {
            lines.text("schedule", format_args!("every {}", span(*interval)), false);
        }
        When::Calendar(calendar) => lines.text("schedule", calendar.text(), false),
    }
    lines.duration("jitter", schedule.jitter, default_jitter(&schedule.when));
    let windows = schedule.windows.iter();
    let windows = windows.map(|window| {
        let time = |time: jiff::civil::Time| time.strftime("%H:%M").to_string();
        format!("{}-{}", time(window.from), time(window.to))
    });
    lines.raw("windows", list(windows), schedule.windows.is_empty());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_shown_says_the_same() {
        let text = "retry_for = '90s'\nresume_min_free = '7%'\nmetrics = '127.0.0.1:7118'\n\
            [volumes.photos]\npath = '/srv/\u{e4} \"x\"'\nreceivers = ['nas2', 'nas3']\nkeep = 5\nschedule = 'every 90 min'\n\
            jitter = '10s'\nwindows = ['22:00-06:00', '12:30-13:00']\nmax_age = 'never'\n\
            [volumes.'a b']\nsnapshots = '/srv/*/s'\npin_parent = true\nmax_age = '26h'\n\
            [volumes.c]\npath = '/c'\nschedule = '0 3 * * *'\n";
        let parse = |text: &str| SenderConfig::parse(Path::new("sender.toml"), text).unwrap();
        let config = parse(text);
        let shown = config.show();
        assert_eq!(parse(&shown), config, "{shown}");
        assert!(
            shown.contains("stall_after = \"10m\"   # the default\n"),
            "{shown}"
        );
        assert!(shown.contains("retry_for = \"90s\"\n"), "{shown}");
        assert!(
            shown.contains("jitter = \"1m\"   # the default\n"),
            "{shown}"
        );
    }
}
