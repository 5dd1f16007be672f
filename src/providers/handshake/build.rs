//! From handshakes as typed to handshakes that can happen; and what is said about them.
//!
//! Refused is what would open a hole or never happen: an answer that shows a setting, a value of the body that nothing
//! has signed behind a signature, a MAC lent to strangers where the scheme leaves the body out, a header that is the
//! gateway's own business.

use std::fmt;

use http::{HeaderName, Method, header};

use super::file::{AnswerFile, ComputeFile, ComputeKind, HandshakeFile, KnowsFile, RegisterFile, TrustFile, WhenFile};
use super::place::{JSON_PATHS_MAX, Place};
use super::text::{Part, Text};
use super::{Answer, Body, Compute, Condition, Handshake, Handshakes, Member, Trust};
use crate::signature::{Algorithm, Scheme, SchemeError};

/// Most handshakes of a provider, and most conditions of one.
const ITEMS_MAX: usize = 16;

/// Headers of an answer that are the gateway's own business, or that make more of a challenge than an answer.
const HEADERS_KEPT: [HeaderName; 14] = [
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::DATE,
    header::LINK,
    header::LOCATION,
    header::REFRESH,
    header::SERVER,
    header::SET_COOKIE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::VIA,
    header::WWW_AUTHENTICATE,
    header::X_CONTENT_TYPE_OPTIONS,
];

impl Handshakes {
    /// Builds the handshakes of a provider with this scheme.
    ///
    /// # Errors
    /// The first key that cannot be, as seen from the list.
    pub(crate) fn build(files: &[HandshakeFile], scheme: &Scheme) -> Result<Handshakes, SchemeError> {
        if files.len() > ITEMS_MAX {
            return Err(SchemeError::new(
                "handshake",
                format!("has more than {ITEMS_MAX} items"),
            ));
        }
        let mut handshakes = Handshakes::default();
        for (index, file) in files.iter().enumerate() {
            let handshake = build(file, scheme).map_err(|error| error.under(&index.to_string()).under("handshake"))?;
            handshakes.list.push(handshake);
        }
        let mut paths = Vec::new();
        for place in handshakes.list.iter().flat_map(Handshake::places) {
            if let Place::Json(path) = place
                && !paths.contains(path)
            {
                paths.push(path.clone());
            }
        }
        if paths.len() > JSON_PATHS_MAX {
            let problem = format!("reads more than {JSON_PATHS_MAX} members of the body");
            return Err(SchemeError::new("handshake", problem));
        }
        handshakes.paths = paths;
        Ok(handshakes)
    }
}

fn build(file: &HandshakeFile, scheme: &Scheme) -> Result<Handshake, SchemeError> {
    let mut when = file.when.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    if when.is_empty() || when.len() > ITEMS_MAX {
        return Err(SchemeError::new("when", "needs a condition").suggest("{ json: type, equals: url_verification }"));
    }
    when.sort_by_key(|condition| match condition {
        Condition::Method(_) => 0,
        of_head if !of_head.in_body() => 1,
        _ => 2,
    });
    let handshake = Handshake {
        label: label(&when).into(),
        trust: trust(file)?,
        compute: file.compute.as_ref().map(compute).transpose()?,
        answer: answer(&file.answer)?,
        when,
    };
    handshake.check_body(scheme)?;
    handshake.check_compute(scheme)?;
    handshake.check_answer()?;
    if matches!(handshake.trust, Trust::Brings(_)) && scheme.mac().is_none() {
        let problem = "does not go with the scheme, which verifies with no secret that could be brought";
        return Err(SchemeError::new("register", problem));
    }
    Ok(handshake)
}

fn condition(file: &WhenFile) -> Result<Condition, SchemeError> {
    let places = [
        ("header", file.header.as_ref()),
        ("query", file.query.as_ref()),
        ("form", file.form.as_ref()),
        ("json", file.json.as_ref()),
    ];
    let has_place = places.iter().any(|(_, name)| name.is_some());
    match (&file.method, file.body, has_place) {
        (Some(method), None, false) => {
            only_by_itself(file)?;
            let taken = [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS];
            let named = taken.into_iter().find(|known| known.as_str() == method);
            named.map(Condition::Method).ok_or_else(|| {
                let problem = format!("{method:?} is no method that providers ask with");
                SchemeError::new("when.method", problem).suggest("GET, HEAD, POST or OPTIONS")
            })
        }
        (None, Some(_), false) => only_by_itself(file).map(|()| Condition::EmptyBody),
        (None, None, true) => {
            let place = Place::typed("when", places)?;
            match (&file.equals, file.present) {
                (Some(text), false) => Ok(Condition::Equals(place, text.clone())),
                (None, true) => Ok(Condition::Present(place)),
                _ => Err(SchemeError::new("when", "needs either `equals` or `present: true`")),
            }
        }
        _ => Err(SchemeError::new(
            "when",
            "needs exactly one of `method`, `header`, `query`, `form`, `json` and `body`",
        )),
    }
}

fn only_by_itself(file: &WhenFile) -> Result<(), SchemeError> {
    match file.equals.is_some() || file.present {
        true => Err(SchemeError::new("when", "`equals` and `present` belong to a place")),
        false => Ok(()),
    }
}

fn label(when: &[Condition]) -> String {
    let mut places = when.iter().filter_map(|condition| match condition {
        Condition::Equals(place, _) | Condition::Present(place) => Some(place.to_string()),
        _ => None,
    });
    let method = when.iter().find_map(|condition| match condition {
        Condition::Method(method) => Some(method.as_str().to_ascii_lowercase()),
        _ => None,
    });
    places.next().or(method).unwrap_or_else(|| "empty".to_owned())
}

fn trust(file: &HandshakeFile) -> Result<Trust, SchemeError> {
    match (&file.verify, &file.register) {
        (None, None) => Ok(Trust::Signed),
        (Some(TrustFile::Anybody), None) => Ok(Trust::Anybody),
        (Some(TrustFile::Setting(knows)), None) => {
            if knows.setting.is_empty() {
                return Err(SchemeError::new(
                    "verify.setting",
                    "names the setting to compare with; it is missing",
                ));
            }
            Ok(Trust::Knows(known_place(knows)?, knows.setting.clone()))
        }
        (None, Some(RegisterFile { header, json })) => {
            let places = [
                ("header", header.as_ref()),
                ("query", None),
                ("form", None),
                ("json", json.as_ref()),
            ];
            Place::typed("register", places).map(Trust::Brings)
        }
        (Some(_), Some(_)) => Err(SchemeError::new(
            "verify",
            "does not go with `register`: who brings the secret can have proven nothing yet",
        )),
    }
}

fn known_place(file: &KnowsFile) -> Result<Place, SchemeError> {
    let places = [
        ("header", file.header.as_ref()),
        ("query", file.query.as_ref()),
        ("form", file.form.as_ref()),
        ("json", file.json.as_ref()),
    ];
    Place::typed("verify", places)
}

fn compute(file: &ComputeFile) -> Result<Compute, SchemeError> {
    let message = Text::parse("compute.message", &file.message)?;
    if message.places().next().is_none() {
        let error = SchemeError::new(
            "compute.message",
            "has no value of the request, so its result is always the same",
        );
        return Err(error.suggest("\"{query:crc_token}\""));
    }
    if message.parts().contains(&Part::Computed) {
        return Err(SchemeError::new("compute.message", "cannot contain its own result"));
    }
    if file.encoding.is_none() != (file.algorithm == ComputeKind::Native) {
        let error = SchemeError::new("compute.encoding", "goes with every algorithm but native");
        return Err(error.suggest("hex or base64"));
    }
    Ok(Compute {
        kind: file.algorithm,
        message,
        encoding: file.encoding,
    })
}

fn answer(file: &AnswerFile) -> Result<Answer, SchemeError> {
    let body = match (&file.text, &file.json, file.empty) {
        (Some(text), None, false) => Body::Text(Text::parse("answer.text", text)?),
        (None, Some(members), false) => {
            let members = members
                .iter()
                .map(|(name, value)| Ok((name.clone(), member(name, value)?)));
            Body::Json(members.collect::<Result<_, _>>()?)
        }
        (None, None, true) => Body::Empty,
        (None, None, false) if file.status.is_some() || !file.headers.is_empty() => Body::Empty,
        _ => {
            let error = SchemeError::new("answer", "needs one of `text`, `json` and `empty: true`");
            return Err(error.suggest("text: \"{json:challenge}\""));
        }
    };
    let status = file.status.unwrap_or(200);
    if !(200..300).contains(&status) || (status == 204 && body != Body::Empty) {
        return Err(SchemeError::new("answer.status", "is a 2xx, and 204 only without a body").suggest("200"));
    }
    let mut headers = Vec::with_capacity(file.headers.len());
    for (name, value) in &file.headers {
        let known = HeaderName::try_from(name.as_str()).ok();
        let Some(known) = known.filter(|name| !HEADERS_KEPT.contains(name) && !name.as_str().starts_with("content-"))
        else {
            return Err(SchemeError::new(
                "answer.headers",
                format!("{name:?} is no header for an answer to a handshake"),
            ));
        };
        headers.push((known, Text::parse("answer.headers", value)?));
    }
    Ok(Answer { status, headers, body })
}

fn member(name: &str, value: &serde_json::Value) -> Result<Member, SchemeError> {
    match value {
        serde_json::Value::String(text) => Text::parse("answer.json", text).map(Member::Text),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => Ok(Member::Fixed(value.clone())),
        _ => Err(SchemeError::new(
            "answer.json",
            format!("{name:?} is no text, number or boolean"),
        )),
    }
}

impl Handshake {
    /// Every place it reads.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        let conditions = self.when.iter().filter_map(|condition| match condition {
            Condition::Equals(place, _) | Condition::Present(place) => Some(place),
            _ => None,
        });
        let trust = match &self.trust {
            Trust::Knows(place, _) | Trust::Brings(place) => Some(place),
            Trust::Signed | Trust::Anybody => None,
        };
        let compute = self.compute.iter().flat_map(|compute| compute.message.places());
        let answer = self.answer.texts().flat_map(Text::places);
        conditions.chain(trust).chain(compute).chain(answer)
    }

    /// Every setting it needs.
    pub(super) fn settings(&self) -> impl Iterator<Item = &str> {
        let known = match &self.trust {
            Trust::Knows(_, name) => Some(name.as_str()),
            _ => None,
        };
        let computed = self.compute_parts().filter_map(|part| match part {
            Part::Setting(name) => Some(name.as_str()),
            _ => None,
        });
        known.into_iter().chain(computed)
    }

    pub(super) fn compute_parts(&self) -> impl Iterator<Item = &Part> {
        self.compute.iter().flat_map(|compute| compute.message.parts())
    }

    fn check_body(&self, scheme: &Scheme) -> Result<(), SchemeError> {
        if self.trust != Trust::Signed || !self.reads_body() || scheme.signs_body() {
            return Ok(());
        }
        let error = SchemeError::new("when", "is not signed: the message has no {body}");
        Err(error.suggest("leave the handshake to the backend, or say `verify: none` where anybody may ask"))
    }

    fn check_compute(&self, scheme: &Scheme) -> Result<(), SchemeError> {
        let Some(compute) = &self.compute else {
            return Ok(());
        };
        if !self.answer.texts().any(|text| text.parts().contains(&Part::Computed)) {
            return Err(SchemeError::new("compute", "is not used").suggest("write {computed} in the answer"));
        }
        let kind = match compute.kind {
            ComputeKind::Sha256 => return Ok(()),
            ComputeKind::Native if scheme.answers_challenges() => return Ok(()),
            ComputeKind::Native => {
                let problem = "is not native to this scheme, which answers no challenge";
                return Err(SchemeError::new("compute.algorithm", problem));
            }
            ComputeKind::HmacSha1 => Algorithm::HmacSha1,
            ComputeKind::HmacSha256 => Algorithm::HmacSha256,
            ComputeKind::HmacSha384 => Algorithm::HmacSha384,
            ComputeKind::HmacSha512 => Algorithm::HmacSha512,
        };
        if scheme.mac() != Some(kind) {
            let problem = "is not the scheme's own algorithm, for which the route's secrets are";
            return Err(SchemeError::new("compute.algorithm", problem));
        }
        if self.lends() && !scheme.signs_plain_body() {
            let problem = "would sign for anybody: the message has no {body} that could tell an event from a challenge";
            return Err(SchemeError::new("compute", problem));
        }
        Ok(())
    }

    fn check_answer(&self) -> Result<(), SchemeError> {
        let shown = self.answer.texts().flat_map(Text::parts).find_map(|part| match part {
            Part::Setting(name) => Some(format!("shows the setting {name:?} to whoever asks")),
            Part::Url => Some("shows the public URL, which no provider asks for".to_owned()),
            Part::Computed if self.compute.is_none() => Some("has {computed}, but there is no `compute`".to_owned()),
            _ => None,
        });
        match shown {
            Some(problem) => Err(SchemeError::new("answer", problem)),
            None => Ok(()),
        }
    }
}

impl Answer {
    fn texts(&self) -> impl Iterator<Item = &Text> {
        let headers = self.headers.iter().map(|(_, text)| text);
        let text = match &self.body {
            Body::Text(text) => Some(text),
            _ => None,
        };
        let members = match &self.body {
            Body::Json(members) => members.as_slice(),
            _ => &[],
        };
        let members = members.iter().filter_map(|(_, member)| match member {
            Member::Text(text) => Some(text),
            Member::Fixed(_) => None,
        });
        headers.chain(text).chain(members)
    }
}

impl fmt::Display for Handshake {
    /// For people: `GET, hub.mode is subscribe; to who knows verify_token`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, condition) in self.when.iter().enumerate() {
            f.write_str(if at > 0 { ", " } else { "" })?;
            match condition {
                Condition::Method(method) => f.write_str(method.as_str())?,
                Condition::Equals(place, text) => write!(f, "{place} is {text}")?,
                Condition::Present(place) => write!(f, "{place} is there")?,
                Condition::EmptyBody => f.write_str("an empty body")?,
            }
        }
        match &self.trust {
            Trust::Signed => f.write_str("; signed"),
            Trust::Knows(_, setting) => write!(f, "; to who knows {setting}"),
            Trust::Anybody => f.write_str("; to anybody"),
            Trust::Brings(place) => write!(f, "; brings the secret in {place}, while the route waits for it"),
        }
    }
}
