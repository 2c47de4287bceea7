//! Changes messages into lies.

use sendshot_proto::v1::transfer_down::Message as Down;
use sendshot_proto::v1::transfer_up::Message as Up;
use sendshot_proto::v1::{
    Accepted, Applied, Checkpoint, Committed, End, Failure, HeldCopy, InventoryResponse, Parent,
    Partial, ResumePoint, Segment, TransferDown, TransferUp,
};

use crate::lying_peer::lie::Lie;
use sendshot_harness::trees::random::Random;

/// Result of rewriting a message of the sender: what the receiver gets, and what the sender gets.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) up: Vec<TransferUp>,
    pub(super) down: Vec<TransferDown>,
}

/// Rewrites messages to tell a lie.
#[derive(Debug)]
pub(super) struct MessageRewriter {
    lie: Lie,
    random: Random,
    told: u64,
    /// Number of segments still to pass before the lie is told.
    at: u64,
    held_back: Option<TransferUp>,
    silent: bool,
}

impl MessageRewriter {
    pub(super) fn new(lie: Lie, seed: u64) -> Self {
        Self {
            lie,
            random: Random::new(seed),
            told: 0,
            at: 0,
            held_back: None,
            silent: false,
        }
    }

    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// Whether the receiver's messages are suppressed from now on.
    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    /// Resets the state of a push when one begins.
    pub(super) fn begins(&mut self) {
        self.at = self.random.below(6);
        self.held_back = None;
        self.silent = false;
    }

    pub(super) fn inventory(&mut self, answer: &mut InventoryResponse) {
        let before = answer.clone();
        let random = &mut self.random;
        match self.lie {
            Lie::Invent => {
                for _ in 0..=random.below(3) {
                    let invented = HeldCopy {
                        uuid: random.bytes(16),
                        ctransid: random.below(1000),
                        name: "20300101T000000Z".into(),
                        unusable: String::new(),
                        unusable_code: String::new(),
                        committed_at: 1,
                    };
                    answer.copies.push(invented);
                }
            }
            Lie::Conceal => match random.once_in(2) {
                true => answer.copies.clear(),
                false => answer.copies.retain(|_| random.once_in(2)),
            },
            Lie::OtherTransid => {
                let more = 1 + random.below(5);
                answer.copies.iter_mut().for_each(|c| c.ctransid += more);
            }
            Lie::Unusable => {
                let why = "changed since commit";
                answer
                    .copies
                    .iter_mut()
                    .for_each(|c| c.unusable = why.into());
            }
            Lie::OtherUuid => answer.copies.iter_mut().for_each(|c| c.uuid[3] ^= 1),
            Lie::Exchange => {
                if let [.., a, b] = &mut answer.copies[..] {
                    std::mem::swap(&mut a.uuid, &mut b.uuid);
                }
            }
            Lie::AtWork => answer.commit_pending = !answer.commit_pending,
            Lie::Malformed => answer.copies.iter_mut().for_each(|c| c.uuid.truncate(5)),
            Lie::CouldNotLook => answer.failure = Some(failure(random)),
            Lie::OtherPoint => {
                for point in answer.partials.iter_mut().flat_map(|p| &mut p.points) {
                    point.offset = match random.once_in(2) {
                        true => point.offset + 1 + random.below(1 << 20),
                        false => random.number(),
                    };
                }
            }
            Lie::OtherPointChain => {
                let partials = answer.partials.iter_mut();
                partials
                    .flat_map(|p| &mut p.points)
                    .for_each(|point| point.chain = random.bytes(32));
            }
            Lie::InventPartial => match answer.partials.first_mut() {
                Some(partial) if random.once_in(2) => partial.transfer_id[2] ^= 1,
                Some(partial) => partial.points.push(any_point(random)),
                None => answer.partials.push(Partial {
                    transfer_id: random.bytes(16),
                    points: vec![any_point(random)],
                }),
            },
            Lie::ConcealPartial => answer.partials.clear(),
            _ => return,
        }
        self.told += u64::from(*answer != before);
    }

    /// Rewrites a message of the receiver into those that the sender gets.
    pub(super) fn down(&mut self, message: TransferDown) -> Vec<TransferDown> {
        if self.silent {
            return Vec::new();
        }
        let honest = vec![message.clone()];
        let lie = match (self.lie, message.message) {
            (Lie::AcceptElsewhere, Some(Down::Accepted(accepted))) => {
                let resume_at = accepted.resume_at + 1 + self.random.below(1 << 20);
                vec![down(Down::Accepted(Accepted {
                    resume_at,
                    ..Default::default()
                }))]
            }
            (Lie::AcceptTwice, Some(Down::Accepted(_))) => [honest.clone(), honest].concat(),
            (Lie::ApplyBeyond, Some(Down::Accepted(_))) => {
                let offset = self.random.number();
                [honest, vec![down(Down::Applied(Applied { offset }))]].concat()
            }
            (Lie::Checkpoint, Some(Down::Accepted(_))) => {
                let offset = self.random.below(1 << 24);
                [honest, vec![down(Down::Checkpoint(Checkpoint { offset }))]].concat()
            }
            (Lie::CheckpointRate, Some(Down::Accepted(accepted))) => {
                let any = [0, 1, 4096, 1 << 20, u64::MAX];
                vec![down(Down::Accepted(Accepted {
                    checkpoint_bytes: self.random.pick(&any),
                    checkpoint_milliseconds: self.random.pick(&any),
                    ..accepted
                }))]
            }
            (Lie::CommitEarly, Some(Down::Accepted(_))) => [honest, vec![invented()]].concat(),
            (Lie::CommitElsewhere, Some(Down::Committed(_))) => vec![invented()],
            (Lie::Fail, Some(Down::Accepted(_))) => {
                let failed = down(Down::Failure(failure(&mut self.random)));
                match self.random.once_in(2) {
                    true => vec![failed],
                    false => [honest, vec![failed]].concat(),
                }
            }
            (Lie::Silence, Some(Down::Accepted(_)))
            | (Lie::SwallowCommit, Some(Down::Committed(_))) => {
                self.silent = true;
                match self.lie == Lie::Silence && self.random.once_in(2) {
                    true => honest,
                    false => Vec::new(),
                }
            }
            _ => return honest,
        };
        self.told += 1;
        lie
    }

    /// Rewrites a message of the sender into those that each side gets.
    pub(super) fn up(&mut self, message: TransferUp) -> Said {
        match message.message {
            Some(Up::Begin(begin)) => self.begin(begin),
            Some(Up::Segment(segment)) => self.segment(segment),
            Some(Up::End(end)) => self.end(end),
            None => Said::default(),
        }
    }

    fn begin(&mut self, mut begin: sendshot_proto::v1::Begin) -> Said {
        let before = begin.clone();
        match self.lie {
            Lie::BeginOther if self.random.once_in(2) => begin.uuid[7] ^= 4,
            Lie::BeginOther => begin.ctransid += 1,
            Lie::BeginParent => {
                begin.parent = match begin.parent {
                    Some(_) if self.random.once_in(2) => None,
                    Some(mut parent) => {
                        parent.uuid[9] ^= 1;
                        Some(parent)
                    }
                    None => Some(Parent {
                        uuid: begin.uuid.clone(),
                        ctransid: begin.ctransid,
                    }),
                }
            }
            Lie::BeginElsewhere => {
                begin.resume_at = match begin.resume_at.take() {
                    Some(_) if self.random.once_in(3) => None,
                    Some(mut point) if self.random.once_in(2) => {
                        point.offset += 1;
                        Some(point)
                    }
                    _ => Some(any_point(&mut self.random)),
                }
            }
            _ => {}
        }
        self.told += u64::from(begin != before);
        said(vec![up(Up::Begin(begin))])
    }

    fn segment(&mut self, segment: Segment) -> Said {
        if self.lie == Lie::Marks {
            self.told += 1;
            let marked = !segment.marked;
            return said(vec![up(Up::Segment(Segment { marked, ..segment }))]);
        }
        let honest = up(Up::Segment(segment.clone()));
        if let Some(held_back) = self.held_back.take() {
            self.told += 1;
            return said(vec![honest, held_back]);
        }
        if self.at > 0 {
            self.at -= 1;
            return said(vec![honest]);
        }
        let random = &mut self.random;
        let changed = |segment| vec![up(Up::Segment(segment))];
        let lie = match self.lie {
            Lie::FlipData => {
                let mut data = segment.data.to_vec();
                let at = random.below(data.len() as u64) as usize;
                data[at] ^= 1 << random.below(8);
                changed(Segment {
                    data: data.into(),
                    ..segment
                })
            }
            Lie::OtherChain => changed(Segment {
                chain: random.bytes(32),
                ..segment
            }),
            Lie::OtherOffset => changed(Segment {
                offset: segment.offset + 1 + random.below(1 << 20),
                ..segment
            }),
            Lie::Drop => Vec::new(),
            Lie::Twice => vec![honest.clone(), honest],
            Lie::Swap => {
                self.held_back = Some(honest);
                self.at = u64::MAX;
                return Said::default();
            }
            Lie::EndEarly => {
                let length = segment.offset + segment.data.len() as u64;
                let chain = segment.chain;
                vec![honest, up(Up::End(End { length, chain }))]
            }
            _ => return said(vec![honest]),
        };
        self.at = u64::MAX;
        self.told += 1;
        said(lie)
    }

    fn end(&mut self, end: End) -> Said {
        let random = &mut self.random;
        let lie = match self.lie {
            Lie::OtherLength => vec![up(Up::End(End {
                length: end.length + 1 + random.below(1 << 20),
                ..end
            }))],
            Lie::OtherEndChain => vec![up(Up::End(End {
                chain: random.bytes(32),
                ..end
            }))],
            Lie::CommitNothing => {
                self.told += 1;
                return Said {
                    up: Vec::new(),
                    down: vec![invented()],
                };
            }
            // There is no later segment to exchange it with.
            Lie::Swap if self.held_back.is_some() => {
                self.told += 1;
                [
                    vec![up(Up::End(end))],
                    self.held_back.take().into_iter().collect(),
                ]
                .concat()
            }
            _ => return said(vec![up(Up::End(end))]),
        };
        self.told += 1;
        said(lie)
    }
}

fn said(up: Vec<TransferUp>) -> Said {
    Said {
        up,
        down: Vec::new(),
    }
}

fn up(message: Up) -> TransferUp {
    TransferUp {
        message: Some(message),
    }
}

fn down(message: Down) -> TransferDown {
    TransferDown {
        message: Some(message),
    }
}

fn invented() -> TransferDown {
    down(Down::Committed(Committed {
        name: "20300101T000000Z".into(),
        directory: "nas1/invented".into(),
        ..Default::default()
    }))
}

fn any_point(random: &mut Random) -> ResumePoint {
    ResumePoint {
        offset: 1 + random.below(1 << 22),
        chain: random.bytes(32),
    }
}

/// A failure with any code, possibly one that does not exist.
fn failure(random: &mut Random) -> Failure {
    Failure {
        code: random.below(16) as i32,
        message: "a lie".into(),
        remedy: "do not believe it".into(),
    }
}
