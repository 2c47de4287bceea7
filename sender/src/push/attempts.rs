//! What follows a failed attempt: another one, after a wait or with a different stream, or the end of the push.

use std::sync::Arc;

use sendshot_model::{Reason, ReasonCode, printable_within};
use sendshot_proto::problem::JOURNAL;
use sendshot_proto::report::Report;
use sendshot_proto::transfer::SEGMENT;

use crate::decide::parent::ParentChoice;
use crate::push::context::PushContext;
use crate::push::delivery::{Delivery, Origin, RejectedParent};
use crate::push::error::Error;
use crate::push::give_up::{discard, give_up};
use crate::push::request::Request;
use crate::push::retry::{self, RetryDecision};
use crate::push::stages::connect;
use crate::push::stages::record::Superseded;
use crate::push::stages::standing;
use crate::state::record::Standing;
use sendshot_transfer::retry::RetryBudget;

/// How often in a row a state is sent again because the plan did not hold. A receiver that causes more restarts
/// is not to be trusted.
const MAX_RESTARTS: u32 = 3;

/// Bytes of the receiver's message about a refused stream that are logged and kept as a reason. The user gets
/// the whole message if the push fails.
const MAX_REFUSAL: usize = 400;

/// The result of an attempt that did not fail.
pub(crate) enum Attempt {
    Done(Box<(Report, Superseded)>),
    StartOver,
    /// The transfer waits for another of the receiver's disks.
    Elsewhere,
}

/// The error of an attempt, and what to do next.
pub(crate) struct Failed {
    error: Error,
    next: RetryDecision,
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        let error = error.into();
        let next = retry::after(&error);
        Self { error, next }
    }
}

/// Why a delivery ended without a copy.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The error for the user.
    Failed(Error),
    /// Nothing can be resumed; the current state of the volume is sent instead.
    StartOver,
}

/// Returns when the next attempt may begin.
///
/// # Errors
/// No attempt may follow: see [`Stopped`].
pub(crate) async fn after(
    failed: Failed,
    context: &mut PushContext,
    delivery: &mut Delivery,
    request: &Request,
    retry_budget: &mut RetryBudget,
) -> Result<(), Stopped> {
    let applied = context.running.progress().1;
    if applied >= delivery.progress.furthest + SEGMENT as u64 {
        delivery.progress.furthest = applied;
        retry_budget.progress();
    }
    let Failed { error, next } = failed;
    match next {
        RetryDecision::Never => {
            let error = give_up(context, delivery, error, next).await;
            Err(Stopped::Failed(error))
        }
        RetryDecision::Later => reconnect(context, delivery, error, retry_budget).await,
        RetryDecision::Otherwise => after_refusal(context, delivery, request, error).await,
        RetryDecision::Negotiate | RetryDecision::Restart | RetryDecision::Hopeless
            if delivery.origin == Origin::Interrupted =>
        {
            context.enter("resume", format!("restarting from the beginning: {error}"));
            tracing::info!(push = %context.running.push, volume = %context.running.volume,
                "an interrupted push cannot be resumed: {error}");
            discard(context, delivery).await;
            Err(Stopped::StartOver)
        }
        RetryDecision::Hopeless => {
            discard(context, delivery).await;
            Err(Stopped::Failed(error))
        }
        RetryDecision::Negotiate | RetryDecision::Restart
            if delivery.progress.restarts >= MAX_RESTARTS =>
        {
            let error = give_up(context, delivery, error, next).await;
            Err(Stopped::Failed(error))
        }
        RetryDecision::Negotiate | RetryDecision::Restart => {
            delivery.progress.restarts += 1;
            delivery.restart();
            delivery.progress.furthest = 0;
            context.enter(
                "retry",
                format!("{error}; it is sent again from the beginning"),
            );
            tracing::info!(push = %context.running.push, "{error}; it is sent again from the beginning");
            Ok(())
        }
    }
}

/// Waits until the receiver is back.
async fn reconnect(
    context: &mut PushContext,
    delivery: &Delivery,
    mut error: Error,
    retry_budget: &mut RetryBudget,
) -> Result<(), Stopped> {
    loop {
        let (running, listener) = (Arc::clone(&context.running), context.listener.clone());
        if let Err(error) = retry::wait(retry_budget, error, &running, &listener).await {
            let error = give_up(context, delivery, error, RetryDecision::Later).await;
            return Err(Stopped::Failed(error));
        }
        match connect::reconnect(context).await {
            Ok(()) => return Ok(()),
            Err(again) => error = again,
        }
        let next = retry::after(&error);
        if next != RetryDecision::Later {
            let error = give_up(context, delivery, error, next).await;
            return Err(Stopped::Failed(error));
        }
    }
}

/// Handles a stream that the receiver could not apply. It is not made again from the same two sendshots: see
/// [`crate::push::stages::standing`].
async fn after_refusal(
    context: &PushContext,
    delivery: &mut Delivery,
    request: &Request,
    error: Error,
) -> Result<(), Stopped> {
    let Some(refused) = delivery.refused() else {
        // A full send, or a stream of the kernel: no other stream can be made.
        if let Some(rejected) = &delivery.rejected {
            let parent = rejected.push;
            let work = move |state: &_| standing::note_full_refusal(state, parent);
            let noted = context.on_store("journal", work).await;
            if let Err(e) = noted.map_err(std::io::Error::other).flatten() {
                tracing::warn!(push = %parent, "a parent that is not at fault stays rejected: {e}");
            }
        }
        discard(context, delivery).await;
        return Err(Stopped::Failed(error));
    };
    let work = move |state: &_| standing::note_refusal(state, refused);
    let noted = context.on_store("journal", work).await;
    let standing = noted
        .map_err(Error::from)
        .and_then(|noted| noted.map_err(Error::volume(JOURNAL)))
        .map_err(Stopped::Failed)?;
    let what = printable_within(&error.to_string(), MAX_REFUSAL);
    let (volume, receiver) = (&context.running.volume, &context.running.receiver);
    let next = match standing {
        Standing::Good | Standing::Suspect => "the volume is captured whole and sent again",
        Standing::Rejected => "everything is sent",
    };
    tracing::warn!(push = %context.running.push, %volume, %receiver,
        "a stream could not be applied: {what}; {next}");
    context.enter("retry", format!("{what}; {next}"));
    if delivery.origin == Origin::Interrupted {
        discard(context, delivery).await;
        return Err(Stopped::StartOver);
    }
    if standing == Standing::Rejected {
        if let ParentChoice::Uuid(_) = request.parent_choice {
            discard(context, delivery).await;
            return Err(Stopped::Failed(Error::ParentRefused(Box::new(error))));
        }
        let reason = format!(
            "the receiver could not apply a stream that was built on a copy of its own: {what}"
        );
        delivery.rejected = Some(RejectedParent {
            push: refused.parent,
            reason: Reason::new(ReasonCode::StreamRefused, reason),
        });
    }
    delivery.restart();
    delivery.progress.furthest = 0;
    Ok(())
}
