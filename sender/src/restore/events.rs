//! The events of a restore, for `sendshotctl`.

use std::fmt;

use sendshot_model::restore::RestoreEvent;

/// Passes on the events of a restore.
pub struct Events(Box<dyn Fn(RestoreEvent) + Send + Sync>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// Passes events to `tell`.
    pub fn new(tell: impl Fn(RestoreEvent) + Send + Sync + 'static) -> Self {
        Self(Box::new(tell))
    }

    /// Passes an event on.
    pub fn tell(&self, event: RestoreEvent) {
        (self.0)(event);
    }

    /// Reports that a stage begins.
    pub fn stage(&self, stage: &str, detail: impl Into<String>) {
        self.tell(RestoreEvent::Stage {
            stage: stage.to_owned(),
            detail: detail.into(),
        });
    }

    /// Tells the user something.
    pub fn note(&self, text: impl Into<String>) {
        self.tell(RestoreEvent::Note { text: text.into() });
    }
}
