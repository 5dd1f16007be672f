//! The search for the mistake: undo one thing, look whether the signature is right, and go on with two.
//!
//! "Right" leaves age aside: a signature that fits but is old was found. The order is that of likelihood, from what
//! happens every day to what is rare, and the first certain finding is the cause that is printed first.

use std::collections::BTreeSet;

use http::HeaderMap;

use super::Finding;
use super::bodies;
use super::capture::Capture;
use super::case::Case;
use super::headers::{self, Original};
use super::secrets;
use super::urls;
use crate::clock::UnixMillis;
use crate::providers::builtin;
use crate::signature::{Failure, Finished, Head, KeyedSecret, Verifier};

/// The verdict that is none of the refusals.
pub(super) const ACCEPTED: &str = "accepted";

/// Longest body for which two mistakes at a time are tried.
const PAIRS_BYTES_MAX: usize = 1024 * 1024;

/// How far a time in the right unit may be from the clock.
const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// Most findings that are told; beyond a handful they are noise.
const FINDINGS_MAX: usize = 5;

pub(super) struct Search<'a> {
    pub(super) case: &'a Case,
    /// Every case of the configuration, this one included.
    all: &'a [Case],
    pub(super) capture: &'a Capture,
    at: UnixMillis,
}

/// A request in the making: the captured one, or one with something undone.
#[derive(Clone, Copy)]
struct Try<'a> {
    target: &'a str,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl<'a> Search<'a> {
    pub(super) fn new(case: &'a Case, all: &'a [Case], capture: &'a Capture, at: UnixMillis) -> Self {
        Search { case, all, capture, at }
    }

    /// The verdict's label, what it means, and why.
    pub(super) fn run(&self) -> (&'static str, String, Vec<Finding>) {
        let verifier = match self.case.verifier(self.case.secrets.clone()) {
            Ok(verifier) => verifier,
            Err(problem) => return ("unknown", format!("the secrets cannot be used: {problem}"), Vec::new()),
        };
        match self.judge(&verifier, self.received(), self.at) {
            Ok(key) => {
                let summary =
                    format!("the signature is right under secret {key:?}, and fresh at the time it was judged at");
                (ACCEPTED, summary, Vec::new())
            }
            Err(failure) => {
                let mut findings = self.causes(failure, &verifier);
                if findings.iter().all(|finding| !finding.certain) {
                    findings.extend(self.guesses(failure));
                }
                findings.truncate(FINDINGS_MAX);
                (failure.as_str(), meaning(failure).to_owned(), findings)
            }
        }
    }

    fn received(&self) -> Try<'a> {
        Try {
            target: &self.capture.target,
            headers: &self.capture.headers,
            body: &self.capture.body,
        }
    }

    fn judge(&self, verifier: &Verifier, tried: Try<'_>, at: UnixMillis) -> Result<String, Failure> {
        let head = Head {
            method: &self.capture.method,
            target: tried.target,
            headers: tried.headers,
        };
        let mut check = verifier.begin(head, at);
        check.update(tried.body);
        let proof = check.finish(tried.body).and_then(Finished::without_fetching)?;
        Ok(proof.key_id().to_string())
    }

    /// Whether the signature is right, whatever its age.
    fn is_right(&self, verifier: &Verifier, tried: Try<'_>) -> bool {
        matches!(self.judge(verifier, tried, self.at), Ok(_) | Err(Failure::Stale))
    }

    /// What makes the signature right.
    fn causes(&self, failure: Failure, verifier: &Verifier) -> Vec<Finding> {
        match failure {
            Failure::Stale => self.age(verifier).into_iter().collect(),
            Failure::Missing => self.names(verifier),
            Failure::Malformed | Failure::Mismatch | Failure::UnknownKey => {
                let steps: [&dyn Fn() -> Vec<Finding>; 7] = [
                    &|| self.expired(),
                    &|| self.body(verifier),
                    &|| self.secret(),
                    &|| self.url(),
                    &|| self.values(verifier),
                    &|| self.elsewhere(),
                    &|| self.pairs(verifier),
                ];
                // One mistake explains a refusal; the rest would only be found again.
                steps
                    .iter()
                    .map(|step| step())
                    .find(|found| !found.is_empty())
                    .unwrap_or_default()
            }
        }
    }

    /// The signed time, found by asking at which time among those in the headers the request is fresh.
    fn age(&self, verifier: &Verifier) -> Option<Finding> {
        let times = times(&self.capture.headers);
        let signed = times
            .into_iter()
            .find(|time| self.judge(verifier, self.received(), *time).is_ok())?;
        if let Some(unit) = self.unit(signed) {
            return Some(unit);
        }
        let (seconds, side) = match self.at.0.checked_sub(signed.0) {
            Some(late) => (late / 1000, "before"),
            None => (signed.0.saturating_sub(self.at.0) / 1000, "after"),
        };
        let tolerance = self.case.options.tolerance.or(self.case.provider.scheme.tolerance());
        let tolerance = tolerance.map_or(0, |tolerance| tolerance.as_secs());
        let cause = format!(
            "it was signed {} {side} it was judged; {tolerance} s are tolerated",
            span(seconds)
        );
        let zone = seconds > 0 && (seconds % 3600 <= 5 || seconds % 3600 >= 3595);
        let fix = match side {
            _ if zone => "this is about a whole number of hours: one of the two clocks is in another time zone",
            "after" => "the clock of this machine is behind: synchronise it (NTP)",
            _ => {
                "it was delivered late, sent again by hand, or this machine's clock is ahead: send a new one, synchronise \
                 the clock, or judge an old capture with --at"
            }
        };
        Some(certain(cause, fix))
    }

    /// A time that is right in another unit than the provider's.
    fn unit(&self, signed: UnixMillis) -> Option<Finding> {
        let is_now = |millis: Option<u64>| millis.is_some_and(|millis| millis.abs_diff(self.at.0) < DAY_MILLIS);
        let what = match signed.0 {
            millis if is_now(Some(millis / 1000)) => "a thousand times too large: milliseconds for seconds",
            millis if is_now(Some(millis / 1_000_000)) => "a million times too large: microseconds for seconds",
            millis if is_now(millis.checked_mul(1000)) => "a thousand times too small: seconds for milliseconds",
            _ => return None,
        };
        let provider = &self.case.provider.title;
        let cause = format!("its time is in another unit than that of {provider}, {what}");
        let fix =
            "write the time in the provider's unit where the request is signed; `hookward sign` shows how it looks";
        Some(certain(cause, fix))
    }

    fn names(&self, verifier: &Verifier) -> Vec<Finding> {
        let needed = self.case.provider.scheme.security_headers();
        let renamed = headers::renamed(&self.capture.headers, needed);
        let found = renamed.map(|Original { what, fix, headers }| Finding {
            certain: self.is_right(verifier, self.with_headers(&headers)),
            cause: format!("a header was renamed on its way: {what}"),
            fix: fix.to_owned(),
        });
        let mut findings: Vec<_> = found.into_iter().collect();
        if findings.is_empty() {
            findings.extend(self.other_senders());
        }
        findings
    }

    /// A secret whose `until` had passed.
    fn expired(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for secret in self
            .case
            .secrets
            .iter()
            .filter(|secret| secret.until.is_some_and(|until| until <= self.at))
        {
            let unlimited = KeyedSecret {
                until: None,
                ..secret.clone()
            };
            if self.fits(self.case, unlimited, self.received()) {
                let cause = format!("it is signed with secret {:?}, whose `until` has passed", &*secret.id);
                findings.push(certain(cause, "give the provider the new secret, or move `until`"));
            }
        }
        findings
    }

    fn body(&self, verifier: &Verifier) -> Vec<Finding> {
        let originals = bodies::originals(&self.capture.body).into_iter();
        let fitting = originals.filter(|original| self.is_right(verifier, self.with_body(&original.body)));
        let told = fitting.map(|original| certain(format!("the body {}", original.what), original.fix));
        told.take(1).collect()
    }

    fn secret(&self) -> Vec<Finding> {
        let fitting = self
            .meant()
            .into_iter()
            .filter(|meant| self.fits(self.case, meant.secret.clone(), self.received()));
        fitting.map(|meant| told(&meant)).take(1).collect()
    }

    /// Another URL than the configured one. The query that a request has is then the one it is judged by.
    fn url(&self) -> Vec<Finding> {
        let Some(configured) = self
            .case
            .options
            .public_url
            .as_ref()
            .filter(|_| self.case.provider.scheme.needs_public_url())
        else {
            return Vec::new();
        };
        for given in urls::given(configured, &self.capture.target, &self.capture.headers) {
            let target = given.url.path_and_query().to_owned();
            let tried = Try {
                target: &target,
                ..self.received()
            };
            let mut case = self.case.clone();
            case.options.public_url = Some(given.url.clone());
            if case
                .secrets
                .iter()
                .any(|secret| self.fits(&case, secret.clone(), tried))
            {
                let cause = format!("the provider has {}: {}", given.what, given.url.as_str());
                return vec![certain(
                    cause,
                    "write exactly that as the route's public_url, or change it at the provider",
                )];
            }
        }
        Vec::new()
    }

    fn meant(&self) -> Vec<secrets::Meant> {
        let form = self.case.provider.scheme.key_form();
        self.case
            .secrets
            .iter()
            .flat_map(|secret| secrets::meant(secret, form))
            .collect()
    }

    fn values(&self, verifier: &Verifier) -> Vec<Finding> {
        let needed = self.case.provider.scheme.security_headers();
        let originals = headers::originals(&self.capture.headers, needed).into_iter();
        let fitting = originals.filter(|original| self.is_right(verifier, self.with_headers(&original.headers)));
        fitting
            .map(|original| certain(format!("the header {}", original.what), original.fix))
            .take(1)
            .collect()
    }

    /// Another route's secret, or another provider's scheme.
    fn elsewhere(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for other in self.all.iter().filter(|other| other.route != self.case.route) {
            for secret in &other.secrets {
                if self.fits(self.case, secret.clone(), self.received()) {
                    let route = other.route.as_deref().unwrap_or_default();
                    let cause = format!("it is signed with secret {:?} of route {route}", &*secret.id);
                    findings.push(certain(
                        cause,
                        "exchange the two secrets (test and live?), or send it to that route",
                    ));
                }
            }
        }
        for provider in builtin().iter().filter(|provider| provider.id != self.case.provider.id) {
            let other = Case {
                provider: provider.clone(),
                ..self.case.clone()
            };
            if self
                .case
                .secrets
                .iter()
                .any(|secret| self.fits(&other, secret.clone(), self.received()))
            {
                let cause = format!("it is signed as {} signs", provider.title);
                findings.push(certain(cause, &format!("provider: {}", provider.id)));
            }
        }
        findings
    }

    /// A wrong secret and a changed body or header at the same time.
    fn pairs(&self, verifier: &Verifier) -> Vec<Finding> {
        if self.capture.body.len() > PAIRS_BYTES_MAX {
            return Vec::new();
        }
        let needed = self.case.provider.scheme.security_headers();
        let changed = bodies::originals(&self.capture.body);
        for value in headers::originals(&self.capture.headers, needed) {
            let tried = |body| Try {
                target: &self.capture.target,
                headers: &value.headers,
                body,
            };
            if let Some(body) = changed.iter().find(|body| self.is_right(verifier, tried(&body.body))) {
                let first = certain(
                    format!("the header {}, and the body {}", value.what, body.what),
                    body.fix,
                );
                return vec![first];
            }
        }
        for meant in self.meant() {
            let Ok(verifier) = self.case.verifier(vec![meant.secret.clone()]) else {
                continue;
            };
            if let Some(body) = changed
                .iter()
                .find(|body| self.is_right(&verifier, self.with_body(&body.body)))
            {
                return vec![told(&meant), certain(format!("and the body {}", body.what), body.fix)];
            }
        }
        Vec::new()
    }

    fn fits(&self, case: &Case, secret: KeyedSecret, tried: Try<'_>) -> bool {
        case.verifier(vec![secret])
            .is_ok_and(|verifier| self.is_right(&verifier, tried))
    }

    fn with_body<'t>(&'t self, body: &'t [u8]) -> Try<'t> {
        Try {
            target: &self.capture.target,
            headers: &self.capture.headers,
            body,
        }
    }

    fn with_headers<'t>(&'t self, headers: &'t HeaderMap) -> Try<'t> {
        Try {
            target: &self.capture.target,
            headers,
            body: &self.capture.body,
        }
    }
}

fn told(meant: &secrets::Meant) -> Finding {
    certain(format!("secret {:?} {}", &*meant.secret.id, meant.what), meant.fix)
}

pub(super) fn certain(cause: String, fix: &str) -> Finding {
    Finding {
        certain: true,
        cause,
        fix: fix.to_owned(),
    }
}

/// Every time that a header may speak of.
fn times(headers: &HeaderMap) -> BTreeSet<UnixMillis> {
    let mut times = BTreeSet::new();
    for value in headers.values().filter_map(|value| value.to_str().ok()) {
        let digits = value.split(|character: char| !character.is_ascii_digit());
        for number in digits.filter(|digits| (10..=16).contains(&digits.len())) {
            let Ok(number) = number.parse::<u64>() else { continue };
            times.extend(
                [number.checked_mul(1000), Some(number), Some(number / 1000)]
                    .into_iter()
                    .flatten()
                    .map(UnixMillis),
            );
        }
        let written = value.trim().parse::<jiff::Timestamp>().ok();
        times.extend(
            written
                .and_then(|time| u64::try_from(time.as_millisecond()).ok())
                .map(UnixMillis),
        );
    }
    times
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn meaning(failure: Failure) -> &'static str {
    match failure {
        Failure::Missing => "a header that the signature needs is not there",
        Failure::Malformed => "the signature, its time or its id cannot be read",
        Failure::Stale => "the signature is right, but its time is too far from the clock",
        Failure::Mismatch => "no configured secret gives the signature that the request carries",
        Failure::UnknownKey => "no secret is active, or the request names a key that is not configured",
    }
}
