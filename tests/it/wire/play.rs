//! Sends cases, several at a time, beside somebody honest who shares the connections behind the gateway.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::cases::{Case, Expect, Kind, genuine, marker, page};
use crate::harness::{Answer, Client, Gateway, route_yaml};

/// Connections that cases are sent on at a time.
const ATTACKERS: usize = 6;

const PATIENCE: Duration = Duration::from_secs(15);

/// Everything is passed through, and nothing limited.
pub async fn gateway(upstream: SocketAddr) -> Gateway {
    let route = "limits: { rate: 100000/s, burst: 100000 }";
    Gateway::start(&format!("{}passthrough: app\n", route_yaml(upstream, route))).await
}

/// What was to reach the upstream, and what went wrong on this side.
#[derive(Default)]
pub struct Account {
    /// Requests that the upstream answered with 200: they came, once.
    pub must: BTreeSet<String>,
    /// Requests that may have come, once: the upstream refused them, or saw no more than their beginning.
    pub may: BTreeSet<String>,
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
        self.wrong.extend(other.wrong);
        self.honest += other.honest;
    }

    fn wrong(&mut self, case: &Case, what: &str) {
        let Case {
            class, kind, expect, ..
        } = case;
        let wire = case.wire[..case.wire.len().min(600)].escape_ascii();
        self.wrong.push(format!(
            "{} {class} {kind:?} {expect:?}: {what}\n    {wire}",
            case.number
        ));
    }

    /// An answer to the accepted request `id`; says whether it is one.
    fn answered(&mut self, id: &str, odd: bool, answer: &Option<Answer>) -> bool {
        let is_its_own = |answer: &Answer| {
            let told = [answer.head.as_bytes(), &answer.body].concat();
            let marker = marker(id);
            told.windows(marker.len()).any(|w| w == marker.as_bytes())
        };
        match answer {
            Some(answer) if matches!(answer.status, 200 | 206) && is_its_own(answer) => {
                self.must.insert(id.to_owned());
                true
            }
            Some(answer) if odd && answer.status >= 400 => {
                self.may.insert(id.to_owned());
                true
            }
            _ => false,
        }
    }
}

/// Sends every case, and lets the honest one send in between.
pub async fn all(address: SocketAddr, cases: &Arc<Vec<Case>>) -> Account {
    let (next, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        let (cases, next) = (Arc::clone(cases), Arc::clone(&next));
        attackers.spawn(async move {
            let mut account = Account::default();
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                let played = tokio::time::timeout(PATIENCE, one(address, case, &mut account)).await;
                if played.is_err() {
                    account.wrong(case, "does not end");
                }
            }
            account
        });
    }
    let honest = tokio::spawn(honest(address, Arc::clone(&over)));
    let mut account = Account::default();
    for attacker in attackers.join_all().await {
        account.add(attacker);
    }
    over.store(true, Ordering::Relaxed);
    account.add(honest.await.unwrap());
    account
}

/// Sends events and pages on one connection and reads its own answers.
async fn honest(address: SocketAddr, over: Arc<AtomicBool>) -> Account {
    let mut account = Account::default();
    let mut client = Client::connect(address).await;
    while !over.load(Ordering::Relaxed) {
        for request in [genuine, page] {
            let id = format!("v{}", account.honest);
            client.send(&request(&id)).await;
            let answer = client.whole_answer().await;
            if !account.answered(&id, false, &answer) {
                account.wrong.push(format!("the honest {id} was answered {answer:?}"));
                return account;
            }
            account.honest += 1;
        }
    }
    account
}

/// Sends one case on a connection of its own, and reads everything that comes back.
async fn one(address: SocketAddr, case: &Case, account: &mut Account) {
    let mut client = Client::connect(address).await;
    client.send(&case.wire).await;
    let id = case.number.to_string();
    let of_page = case.kind == Kind::Page;
    if of_page && matches!(case.expect, Expect::Cut | Expect::Broken) {
        account.may.insert(id.clone());
    }
    let answer = match case.expect {
        Expect::Cut => {
            client.finish_sending().await;
            client.whole_answer().await
        }
        _ => client.whole_answer().await,
    };
    let told = answer
        .as_ref()
        .map(|answer| (answer.status, answer.header("connection") == Some("close")));
    let fine = match case.expect {
        Expect::Accepted | Expect::Last => account.answered(&id, case.odd, &answer),
        Expect::Refused => told == Some((400, true)),
        Expect::Broken => told == Some((400, true)) || of_page,
        Expect::Cut => told.is_none_or(|(status, _)| status >= 400) || of_page,
        Expect::Unauthorized => told.is_some_and(|(status, _)| status == 401),
        Expect::Path => told.is_some_and(|(status, _)| status == 400),
        Expect::Method => told.is_some_and(|(status, _)| status == 405),
        Expect::Encoded => told.is_some_and(|(status, _)| status == 415),
    };
    if !fine {
        return account.wrong(case, &format!("answered {answer:?}"));
    }
    if case.expect == Expect::Accepted {
        // Whoever took another end for that of the first one would find something else in front of this one.
        let id = format!("x{id}");
        let next = match case.kind {
            Kind::Webhook => genuine(&id),
            Kind::Page => page(&id),
        };
        client.send(&next).await;
        let next = client.whole_answer().await;
        // A connection may end with an answer that is none of this request's own.
        let over = next.is_none() && told.is_some_and(|(status, _)| status != 200);
        if !over && !account.answered(&id, false, &next) {
            return account.wrong(case, &format!("the next one was answered {next:?}"));
        }
    }
    // Whoever waits for more gets none, and whoever takes what is hidden for a request answers it.
    client.finish_sending_if_open().await;
    if !client.closes().await {
        account.wrong(case, "more came than its answers");
    }
}
