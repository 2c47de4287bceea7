//! `receiver.toml` in effect.

use sendshot_retention::{DEFAULT_PROTECT, Rule};

use crate::receiver::{
    ClockRule, DEFAULT_CHECKPOINT_BYTES, DEFAULT_CHECKPOINT_INTERVAL, DEFAULT_MAX_AGE,
    DEFAULT_PARTIAL_KEEP, KeepPolicy, MinFree, ReceiverConfig, RestoreRule, SenderPolicy, Times,
    default_listen,
};
use crate::show::{Lines, size, span};

impl ReceiverConfig {
    /// The configuration as a file with every setting, the defaults marked. A sender that is not named has the defaults.
    #[must_use]
    pub fn show(&self) -> String {
        let mut lines = Lines::default();
        lines.text("listen", self.listen, self.listen == default_listen());
        lines.text("root", self.root.display(), false);
        lines.duration("partial_keep", self.partial_keep, DEFAULT_PARTIAL_KEEP);
        lines.text(
            "checkpoint_bytes",
            size(self.checkpoint_bytes),
            self.checkpoint_bytes == DEFAULT_CHECKPOINT_BYTES,
        );
        lines.duration(
            "checkpoint_interval",
            self.checkpoint_interval,
            DEFAULT_CHECKPOINT_INTERVAL,
        );
        match self.timezone.as_ref().and_then(|zone| zone.iana_name()) {
            Some(name) => lines.text("timezone", name, false),
            None => lines.absent("timezone", "that of this host"),
        }
        let clock = match self.clock {
            ClockRule::Kernel => "kernel",
            ClockRule::Trusted => "trusted",
        };
        lines.text("clock", clock, self.clock == ClockRule::default());
        match self.min_free {
            MinFree::Default => {
                lines.absent("min_free", "5 % of the disk or 20 GiB, whichever is less")
            }
            MinFree::Bytes(bytes) => lines.text("min_free", size(bytes), false),
            MinFree::Percent(percent) => lines.text("min_free", format_args!("{percent}%"), false),
        }
        match self.metrics {
            Some(address) => lines.text("metrics", address, false),
            None => lines.absent("metrics", "off"),
        }
        for (name, policy) in &self.senders {
            lines.table(&["senders", name.as_str()]);
            show_sender(&mut lines, policy);
            for (volume, keep) in &policy.volumes {
                lines.table(&["senders", name.as_str(), "volumes", volume.as_str()]);
                show_keep(&mut lines, keep, &policy.keep);
            }
        }
        lines.0
    }
}

fn show_sender(lines: &mut Lines, policy: &SenderPolicy) {
    let default = SenderPolicy::default();
    show_keep(lines, &policy.keep, &KeepPolicy::default());
    lines.raw(
        "max_volumes",
        policy.max_volumes,
        policy.max_volumes == default.max_volumes,
    );
    match policy.max_bytes {
        Some(bytes) => lines.text("max_bytes", size(bytes), false),
        None => lines.absent("max_bytes", "no limit but the disk"),
    }
    lines.raw(
        "max_partials",
        policy.max_partials,
        policy.max_partials == default.max_partials,
    );
    let restore = match policy.restore {
        RestoreRule::Ask => "ask",
        RestoreRule::Always => "always",
        RestoreRule::Never => "never",
    };
    lines.text("restore", restore, policy.restore == default.restore);
    lines.raw(
        "max_fetches",
        policy.max_fetches,
        policy.max_fetches == default.max_fetches,
    );
}

/// What a table says of the copies; where it says nothing, what the table above it says, or the default.
fn show_keep(lines: &mut Lines, keep: &KeepPolicy, above: &KeepPolicy) {
    let rule = keep.keep.as_ref().or(above.keep.as_ref());
    let rule = rule.cloned().unwrap_or_default();
    lines.text("keep", &rule, rule == Rule::default());
    let protect = keep.protect.or(above.protect).unwrap_or(DEFAULT_PROTECT);
    lines.duration("protect", protect, DEFAULT_PROTECT);
    let times = keep.times.or(above.times).unwrap_or_default();
    let name = match times {
        Times::Commit => "commit",
        Times::Snapshot => "snapshot",
    };
    lines.text("times", name, times == Times::default());
    let max_age = keep.max_age.or(above.max_age);
    let max_age = max_age.unwrap_or(Some(DEFAULT_MAX_AGE));
    let is_default = max_age == Some(DEFAULT_MAX_AGE);
    lines.text(
        "max_age",
        max_age.map_or_else(|| "never".to_owned(), span),
        is_default,
    );
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_shown_says_the_same() {
        let text = "root = '/srv/backup'\nlisten = '192.0.2.7:7117'\ncheckpoint_bytes = '3 MiB'\ntimezone = 'Europe/Berlin'\n\
            clock = 'trusted'\nmin_free = '20 GiB'\nmetrics = '[::1]:7119'\n\
            [senders.nas1]\nkeep = '24 hours hourly, 30 days daily, 10 years yearly'\nmax_bytes = '2 TiB'\nmax_age = 'never'\n\
            [senders.nas1.volumes.photos]\nkeep = 'all'\nprotect = '0s'\n[senders.nas1.volumes.mail]\ntimes = 'snapshot'\n\
            [senders.nas3]\nrestore = 'always'\n";
        let parse = |text: &str| ReceiverConfig::parse(Path::new("receiver.toml"), text).unwrap();
        let config = parse(text);
        let shown = config.show();
        let again = parse(&shown);
        assert_eq!(again.show(), shown);
        for (sender, volume) in [
            ("nas1", "photos"),
            ("nas1", "mail"),
            ("nas1", "x"),
            ("nas3", "x"),
        ] {
            assert_eq!(
                again.retention(sender, volume),
                config.retention(sender, volume)
            );
            assert_eq!(
                again.max_age(sender, volume),
                config.max_age(sender, volume)
            );
        }
        let without = |mut config: ReceiverConfig| {
            for policy in config.senders.values_mut() {
                policy.keep = KeepPolicy::default();
                policy.volumes.clear();
            }
            config
        };
        assert_eq!(without(again), without(config), "{shown}");
    }
}
