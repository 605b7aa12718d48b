//! Who is shipped to, and by which lanes: those that are at work, those that are to begin, and how others have ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::engine::role::pause::Paused;
use crate::engine::ship::Receiver;
use crate::engine::ship::board::Id;
use crate::engine::ship::orders::Orders;

/// See the module.
#[derive(Default)]
pub(in crate::engine::ship) struct Crew {
    /// All receivers that there are to be.
    pub(super) posts: BTreeMap<Id, Post>,
    pub(super) working: BTreeMap<Id, Working>,
    pub(super) ended: Vec<(String, anyhow::Error)>,
    /// Why nothing is shipped.
    pub(super) paused: Option<Paused>,
    /// Why nothing can be shipped any more.
    pub(super) verdict: Option<anyhow::Error>,
    /// The most there were: of one alone no name needs to be told.
    pub(super) count: usize,
    /// Since when the policy is met, at the end.
    pub(super) met: Option<Instant>,
    /// Whether boundaries are not confirmed in time.
    pub(super) is_failing: bool,
    /// Changes of links when the status was written.
    pub(super) turns: u64,
    /// When it was, and when the role was asked for.
    pub(super) looked: Option<Instant>,
    pub(super) asked: Option<Instant>,
}

/// A receiver that there is to be.
pub(super) struct Post {
    pub(super) name: String,
    /// What makes it another one when it changes.
    pub(super) key: String,
    /// To begin with, as soon as no lane of this name is at work.
    pub(super) next: Option<Receiver>,
    /// The same once more; `None` for one that cannot be started again.
    again: Option<Receiver>,
}

/// A lane at work.
pub(super) struct Working {
    pub(super) name: String,
    pub(super) orders: Arc<Orders>,
    /// Whether it was called off for good: how it ends is nobody's business.
    pub(super) is_off: bool,
}

impl Post {
    pub(super) fn new(receiver: Receiver) -> Post {
        let (name, key, again) = (receiver.name.clone(), receiver.key(), receiver.again());
        Post { name, key, next: Some(receiver), again }
    }

    /// It begins again, unless it is to begin anyway.
    pub(super) fn renew(&mut self) {
        self.next = self.next.take().or_else(|| self.again.as_ref().and_then(Receiver::again));
    }
}

impl Crew {
    /// Whether a pause can be waited out: all receivers can be started when it is over.
    pub(super) fn can_begin_again(&self) -> bool {
        self.posts.values().all(|post| post.again.is_some())
    }

    /// Whether nobody is at work, nor to begin.
    pub(super) fn is_done(&self) -> bool {
        self.working.is_empty() && self.posts.values().all(|post| post.next.is_none())
    }

    /// The next receiver to begin with: none of which a lane is at work still, which would hold it.
    pub(super) fn next(&mut self) -> Option<(Id, Receiver)> {
        let Crew { posts, working, .. } = self;
        let is_free = |post: &Post| post.next.is_some() && working.values().all(|lane| lane.name != post.name);
        posts.iter_mut().find(|(_, post)| is_free(post)).and_then(|(id, post)| Some((*id, post.next.take()?)))
    }

    /// Calls all lanes off.
    pub(super) fn retire(&self) {
        self.working.values().for_each(|lane| lane.orders.retire());
    }
}
