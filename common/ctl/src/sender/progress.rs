//! The progress of a push or a restore: one live line on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sendshot_model::human;
use sendshot_proto::v1::{PushProgress, PushStage};

use crate::output::Output;

/// How often the live line is drawn even when nothing arrives.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Shows the progress of a push.
#[derive(Debug)]
pub struct Progress {
    output: Output,
    live: Option<ProgressBar>,
    name: String,
    stage: String,
    stage_began: Instant,
    /// Bytes sent when the first progress of this stage arrived: a resumed push starts with those from before.
    stage_bytes: Option<u64>,
    began: Instant,
}

impl Progress {
    /// Starts the display of the push called `name`.
    pub fn new(output: Output, name: String) -> Self {
        let live = output.is_live().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(PROGRESS_INTERVAL);
            bar
        });
        Self {
            output,
            live,
            name,
            stage: "start".to_owned(),
            stage_began: Instant::now(),
            stage_bytes: None,
            began: Instant::now(),
        }
    }

    /// Shows that a stage was entered.
    pub fn stage(&mut self, stage: PushStage) {
        self.stage = stage.stage;
        self.stage_began = Instant::now();
        self.stage_bytes = None;
        let line = match stage.detail.as_str() {
            "" => format!("{}: {}", self.name, self.stage),
            detail => format!("{}: {} – {detail}", self.name, self.stage),
        };
        match (&self.live, self.stage.as_str()) {
            // The reason for a delay stays on the terminal.
            (Some(_), "retry" | "resume" | "wait") => self.say(&line),
            (Some(bar), _) => bar.set_message(line),
            (None, _) => self.output.note(&line),
        }
    }

    /// Shows the bytes sent.
    pub fn progress(&mut self, progress: &PushProgress) {
        let before = *self.stage_bytes.get_or_insert(progress.stream_bytes);
        let Some(bar) = &self.live else { return };
        let moved = progress.stream_bytes.saturating_sub(before);
        let time = self.stage_began.elapsed();
        bar.set_message(format!(
            "{}: {}  {}  {}  {}{}",
            self.name,
            self.stage,
            human::bytes_human(progress.stream_bytes),
            human::rate(moved, time),
            human::duration(self.began.elapsed()),
            rest(progress, moved, time),
        ));
    }

    /// Removes the live line.
    pub fn hide(&self) {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
    }

    /// Prints a line above the live line.
    pub fn say(&self, text: &str) {
        match &self.live {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => self.output.note(text),
        }
    }
}

/// The part that is done and the time left, if the length of the stream is known.
fn rest(progress: &PushProgress, moved: u64, time: Duration) -> String {
    let (done, total) = (progress.stream_bytes as f64, progress.total_bytes as f64);
    if total == 0.0 || moved == 0 {
        return String::new();
    }
    let share = (done / total).min(1.0);
    let left = time.as_secs_f64() * (total - done).max(0.0) / moved as f64;
    let left = Duration::try_from_secs_f64(left).unwrap_or_default();
    format!("  {:.0} %, {} left", share * 100.0, human::duration(left))
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.hide();
    }
}
