//! The progress of a push: one live line on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sendshot_model::human;
use sendshot_proto::v1::{PushProgress, PushStage};

use crate::output::Output;

/// How often the live line is drawn even when nothing arrives.
const TICK: Duration = Duration::from_millis(250);

/// Shows how a push comes on.
#[derive(Debug)]
pub struct Progress {
    output: Output,
    live: Option<ProgressBar>,
    name: String,
    stage: String,
    stage_began: Instant,
    began: Instant,
}

impl Progress {
    /// Begins to show the push called `name`.
    pub fn new(output: Output, name: String) -> Self {
        let live = output.is_live().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            output,
            live,
            name,
            stage: "start".to_owned(),
            stage_began: Instant::now(),
            began: Instant::now(),
        }
    }

    /// A stage was entered.
    pub fn stage(&mut self, stage: PushStage) {
        self.stage = stage.stage;
        self.stage_began = Instant::now();
        let line = match stage.detail.as_str() {
            "" => format!("{}: {}", self.name, self.stage),
            detail => format!("{}: {} – {detail}", self.name, self.stage),
        };
        match &self.live {
            Some(bar) => bar.set_message(line),
            None => self.output.note(&line),
        }
    }

    /// Bytes went over.
    pub fn progress(&self, progress: &PushProgress) {
        let Some(bar) = &self.live else { return };
        bar.set_message(format!(
            "{}: {}  {}  {}  {}",
            self.name,
            self.stage,
            human::bytes_human(progress.stream_bytes),
            human::rate(progress.stream_bytes, self.stage_began.elapsed()),
            human::duration(self.began.elapsed()),
        ));
    }

    /// Says something above the live line.
    pub fn say(&self, text: &str) {
        match &self.live {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => self.output.note(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
    }
}
