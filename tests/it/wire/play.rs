//! Sends cases, several at a time, beside somebody honest who shares the connections behind the gateway.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::cases::{Case, Expect, Kind, genuine, marker, page};
use crate::harness::{Answer, Client, Gateway, route_yaml, until};

/// Connections that cases are sent on at a time.
const ATTACKERS: usize = 6;

/// Everything is passed through, and nothing limited.
pub async fn gateway(upstream: SocketAddr) -> Gateway {
    let route = "limits: { rate: 100000/s, burst: 100000 }";
    Gateway::start(&format!("{}passthrough: app\n", route_yaml(upstream, route))).await
}

/// What was to reach the upstream, and what went wrong on this side.
#[derive(Default)]
pub struct Account {
    /// Requests that must have come.
    pub must: BTreeSet<String>,
    /// Requests that may have come.
    pub may: BTreeSet<String>,
    /// Those of them that the upstream did not answer with 200.
    pub unanswered: BTreeSet<String>,
    pub wrong: Vec<String>,
    /// Requests of the honest one.
    pub honest: usize,
}

impl Account {
    pub fn expects(&self, id: &str) -> bool {
        self.must.contains(id) || self.may.contains(id)
    }

    fn add(&mut self, other: Account) {
        self.must.extend(other.must);
        self.may.extend(other.may);
        self.unanswered.extend(other.unanswered);
        self.wrong.extend(other.wrong);
        self.honest += other.honest;
    }

    /// An answer to the accepted request `id`.
    fn answered(&mut self, id: &str, odd: bool, answer: Option<Answer>) {
        let is_its_own = |answer: &Answer| {
            let told = [answer.head.as_bytes(), &answer.body].concat();
            let marker = marker(id);
            told.windows(marker.len()).any(|w| w == marker.as_bytes())
        };
        match answer {
            Some(answer) if answer.status == 200 && is_its_own(&answer) => drop(self.must.insert(id.to_owned())),
            // The upstream refused it; it may have logged it, or not have got so far.
            Some(answer) if odd && answer.status >= 400 => {
                self.may.insert(id.to_owned());
                self.unanswered.insert(id.to_owned());
            }
            answer => {
                self.may.insert(id.to_owned());
                self.wrong.push(format!("{id} was answered {answer:?}"));
            }
        }
    }
}

/// Sends every case, and lets the honest one send in between.
pub async fn all(gateway: &Gateway, cases: &[Case]) -> Account {
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let attack = async || {
        let mut account = Account::default();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            one(gateway.address, case, &mut account).await;
        }
        account
    };
    let attacks = async {
        let mut all = Account::default();
        for account in futures(std::iter::repeat_with(&attack).take(ATTACKERS)).await {
            all.add(account);
        }
        over.store(true, Ordering::Relaxed);
        all
    };
    let (mut account, honest) = tokio::join!(attacks, honest(gateway.address, &over));
    account.add(honest);
    account
}
