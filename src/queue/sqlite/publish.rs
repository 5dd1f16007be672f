//! Publishing: the event, its deliveries and the end of its replay claim, in one transaction.
//!
//! Everything that takes time (the head's form, the checksum) is done by the publisher before the writer sees the job.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::at_hand::{BACKLOG_MAX, Known};
use super::desk::{Changes, Desk};
use super::schema::{self, LaneNumber, Owed};
use crate::database::{Failure, Job};
use crate::queue::{EventId, EventState, KeptEvent, Lane, NewEvent, QueueError, Receipt};
use crate::store::Settlement;

/// Writes one event.
pub(super) struct Publish {
    desk: Arc<Mutex<Desk>>,
    new: NewEvent,
    lanes: Vec<Lane>,
    head: Vec<u8>,
    checksum: [u8; 4],
    settlement: Option<Settlement>,
    told: oneshot::Sender<Result<Receipt, QueueError>>,
    id: u64,
    changes: Changes,
    made: Vec<LaneNumber>,
}

impl Publish {
    pub(super) fn new(
        desk: &Arc<Mutex<Desk>>,
        new: NewEvent,
        settlement: Option<Settlement>,
        told: oneshot::Sender<Result<Receipt, QueueError>>,
    ) -> Self {
        let head = new.event.head();
        let checksum = KeptEvent::checksum(&head, &new.event.body);
        Publish {
            desk: Arc::clone(desk),
            lanes: new.lanes().collect(),
            new,
            head,
            checksum,
            settlement,
            told,
            id: 0,
            changes: Changes::default(),
            made: Vec::new(),
        }
    }

    fn insert_event(&self, db: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO event (id, accepted, lanes, bytes, type, event_id, digest, head, body)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let event = &self.new.event;
        db.prepare_cached(sql)?.execute((
            self.id,
            self.new.accepted_at.0,
            self.lanes.len(),
            event.body.len(),
            &event.event_type,
            &event.event_id,
            self.checksum.as_slice(),
            &self.head,
            event.body.as_ref(),
        ))?;
        Ok(())
    }

    fn write(&mut self, db: &Connection, desk: &mut Desk) -> rusqlite::Result<()> {
        // Ascending whatever the wall clock does, and never the id of an event of before.
        self.id = desk
            .last_id
            .saturating_add(1)
            .max(self.new.accepted_at.0.saturating_mul(1000));
        self.changes = Changes::default();
        self.made.clear();
        if !self.lanes.is_empty() {
            self.insert_event(db)?;
        }
        let owed = Owed {
            key: self.new.order_key.as_ref().map(|key| key.to_vec()),
            ..Owed::default()
        };
        for lane in &self.lanes {
            let (number, made) = desk.number_or_new(db, lane)?;
            if made {
                self.made.push(number);
            }
            let state = schema::enter(db, number, self.id, &owed, 0)?;
            self.changes.enters(number, state);
        }
        if let Some(settlement) = &self.settlement {
            settlement.write(db)?;
        }
        desk.last_id = self.id;
        desk.apply(&self.changes);
        Ok(())
    }

    /// Durable: whoever attempts it next need not read it back.
    fn leave_at_hand(&self, desk: &mut Desk) {
        let mut each = self.lanes.iter().filter_map(|lane| desk.number(lane));
        if !each.all(|lane| desk.lying(lane, EventState::Pending) <= BACKLOG_MAX) {
            return;
        }
        let lanes = self.lanes.len();
        let bytes = self.head.len().saturating_add(self.new.event.body.len()) as u64;
        let known = Known {
            event: Arc::clone(&self.new.event),
            accepted_at: self.new.accepted_at,
            share: bytes.checked_div(lanes as u64).unwrap_or(bytes),
        };
        desk.at_hand.keep(self.id, known, bytes, lanes);
    }
}

impl Job for Publish {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let desk = Arc::clone(&self.desk);
        let mut desk = desk.lock();
        let written = self.write(db, &mut desk);
        if written.is_err() {
            // A lane that the file does not have: what is published to it later would belong to nobody.
            self.made.drain(..).for_each(|lane| desk.drop_lane(lane));
        }
        written
    }

    fn undo(&mut self) {
        let mut desk = self.desk.lock();
        desk.take_back(&self.changes);
        self.made.drain(..).for_each(|lane| desk.drop_lane(lane));
    }

    fn finish(mut self: Box<Self>, outcome: Result<(), Failure>) {
        let receipt = match outcome {
            Ok(()) => {
                let settled = self
                    .settlement
                    .take()
                    .is_some_and(|settlement| settlement.settle().is_ok());
                let mut desk = self.desk.lock();
                self.leave_at_hand(&mut desk);
                desk.ring(&self.changes);
                drop(desk);
                Ok(Receipt::new(EventId(self.id), settled))
            }
            // The settlement is dropped with the job: the event's next copy is new.
            Err(failure) => Err(failure.into()),
        };
        // The publisher may be gone; the event is on its way all the same.
        let _ = self.told.send(receipt);
    }

    fn needs_room(&self) -> bool {
        true
    }
}
