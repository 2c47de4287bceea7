//! The page that Prometheus reads.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Names and values of the labels of a time series.
pub type Labels = Vec<(&'static str, String)>;

/// The value of what is so, or is not.
#[must_use]
pub fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// The metrics at one moment. Every name begins with `sendshot_`.
#[derive(Debug)]
pub struct Page(Registry);

impl Page {
    /// A page with the version of a daemon, `sender` or `receiver`.
    #[must_use]
    pub fn new(daemon: &'static str, version: &'static str) -> Self {
        let mut page = Self(Registry::with_prefix("sendshot"));
        let labels = vec![
            ("daemon", daemon.to_owned()),
            ("version", version.to_owned()),
        ];
        page.gauge("build_info", "Version of the daemon", [(labels, 1.0)]);
        page
    }

    /// Adds values that go up and down.
    pub fn gauge(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.add(name, help, family);
    }

    /// Adds values that only grow while the daemon runs; `_total` is added to the name.
    pub fn counter(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.add(name, help, family);
    }

    fn add<M>(&mut self, name: &str, help: &str, family: Family<Labels, M>)
    where
        Family<Labels, M>: EncodeMetric + TypedMetric,
        M: std::fmt::Debug + Send + Sync + 'static,
    {
        self.0.register(name, help, family);
    }

    /// The page in the OpenMetrics format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = encode(&mut text, &self.0);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_each_value_with_its_labels() {
        let mut page = Page::new("sender", "1.2");
        let photos = vec![
            ("receiver", "nas2".to_owned()),
            ("volume", "a\"b\\c\n".to_owned()),
        ];
        page.gauge("push_failed", "Whether it failed", [(photos.clone(), 1.0)]);
        page.counter("pushes", "Pushes", [(photos, 3)]);
        let text = page.text();
        for line in [
            "sendshot_build_info{daemon=\"sender\",version=\"1.2\"} 1.0",
            "sendshot_push_failed{receiver=\"nas2\",volume=\"a\\\"b\\\\c\\n\"} 1.0",
            "sendshot_pushes_total{receiver=\"nas2\",volume=\"a\\\"b\\\\c\\n\"} 3",
            "# TYPE sendshot_pushes counter",
            "# EOF",
        ] {
            assert!(
                text.lines().any(|other| other == line),
                "no line {line} in:\n{text}"
            );
        }
    }
}
