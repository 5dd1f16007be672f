//! From a provider as typed to one that can be used.
//!
//! What is authenticated and what is only a label is decided here. Each refusal names the key that is wrong and what to
//! write instead.

use std::sync::Arc;

use http::HeaderName;

use super::file::{EventFile, EventIdFile, ProviderFile, SampleFile, SelectorFile, StrengthFile};
use super::{EventFacts, EventId, Handshakes, Provider, Retries, SampleTemplate, Selector};
use crate::signature::{JsonPath, Scheme, SchemeError, Strength};

impl Provider {
    /// A provider from a file as typed: a user's own scheme, or a preset.
    ///
    /// # Errors
    /// The first key that cannot be, as seen from the file's root, with what is wrong and what to write instead.
    pub fn own(name: &str, file: &ProviderFile) -> Result<Provider, SchemeError> {
        let scheme = Scheme::build(name, &file.scheme).map_err(|e| e.under("scheme"))?;
        check_strength(file, &scheme)?;
        let handshakes = Handshakes::build(&file.handshake, &scheme)?;
        check_settings(file, &scheme, &handshakes)?;
        let event = build_event(&file.event, &scheme).map_err(|e| e.under("event"))?;
        let sample = build_sample(file.sample.as_ref(), &scheme).map_err(|e| e.under("sample"))?;
        Ok(Provider {
            id: name.to_owned(),
            title: file.name.clone().unwrap_or_else(|| name.to_owned()),
            docs: file.docs.clone(),
            checked: file.checked.clone(),
            confidence: file.confidence,
            traps: file.traps.clone(),
            scheme: Arc::new(scheme),
            settings: file.settings.clone(),
            event,
            handshakes,
            retry: file.retry.as_ref().map(|retry| Retries {
                deadline: retry.deadline,
                on: retry.on.clone(),
                schedule: retry.schedule.clone(),
            }),
            sample,
        })
    }
}

fn build_event(file: &EventFile, scheme: &Scheme) -> Result<EventFacts, SchemeError> {
    let id = match &file.id {
        None => EventId::Unsigned(None),
        Some(id) => build_event_id(id, scheme)?,
    };
    let kind = match &file.kind {
        None => None,
        Some(SelectorFile {
            json: Some(path),
            form: None,
            header: None,
        }) => Some(Selector::Json(JsonPath::parse("type.json", path)?)),
        Some(SelectorFile {
            json: None,
            form: Some(name),
            header: None,
        }) => Some(Selector::Form(name.clone())),
        Some(SelectorFile {
            json: None,
            form: None,
            header: Some(name),
        }) => Some(Selector::Header(header_name("type.header", name)?)),
        Some(_) => return Err(SchemeError::new("type", "needs one of `json`, `form` and `header`")),
    };
    let delivery = match &file.delivery {
        None => None,
        Some(label) => Some(header_name("delivery.header", &label.header)?),
    };
    if file.alike.is_some() && !matches!(id, EventId::Unsigned(_)) {
        return Err(SchemeError::new(
            "alike",
            "events that have a signed id are never alike",
        ));
    }
    Ok(EventFacts {
        id,
        kind,
        delivery,
        alike: file.alike.clone(),
    })
}

/// An event id decides what counts as a repetition, so it has to be something that the signature covers.
fn build_event_id(file: &EventIdFile, scheme: &Scheme) -> Result<EventId, SchemeError> {
    const WAY_OUT: &str = "write `unsigned: why there is no signed id`";
    match (&file.json, &file.form, &file.header, file.signed, &file.unsigned) {
        (Some(path), None, None, false, None) => {
            let path = JsonPath::parse("id.json", path)?;
            if !scheme.signs_body() && !scheme.signs_member(&path) {
                let problem = "is not signed: the message has neither {body} nor a certain {json:...} of it";
                return Err(SchemeError::new("id.json", problem).suggest(WAY_OUT));
            }
            Ok(EventId::Json(path))
        }
        (None, Some(name), None, false, None) => {
            if !scheme.signs_body() && !scheme.signs_field(name) {
                let problem = "is not signed: the message has neither {body} nor a certain {form:...} of it";
                return Err(SchemeError::new("id.form", problem).suggest(WAY_OUT));
            }
            Ok(EventId::Form(name.clone()))
        }
        (None, None, Some(name), false, None) => {
            if Some(&header_name("id.header", name)?) == scheme.id_header() {
                return Ok(EventId::Signed);
            }
            let error = SchemeError::new("id.header", format!("{name} is not signed, so anybody can change it"));
            Err(error.suggest("use it as `delivery`, a label, and say `unsigned: why there is no signed id`"))
        }
        (None, None, None, true, None) if scheme.signs_id() => Ok(EventId::Signed),
        (None, None, None, true, None) => Err(SchemeError::new("id.signed", "the scheme signs no id").suggest(WAY_OUT)),
        (None, None, None, false, Some(why)) => Ok(EventId::Unsigned(Some(why.clone()))),
        _ => Err(SchemeError::new(
            "id",
            "needs one of `json`, `form`, `header`, `signed` and `unsigned`",
        )),
    }
}

/// A file that promises more than its scheme holds is read by somebody who relies on it.
fn check_strength(file: &ProviderFile, scheme: &Scheme) -> Result<(), SchemeError> {
    let declared = match file.strength {
        None => return Ok(()),
        Some(StrengthFile::Verified) => Strength::Verified,
        Some(StrengthFile::Authenticated) => Strength::Authenticated,
    };
    match scheme.strength() {
        is if is == declared => Ok(()),
        is => {
            let problem = format!("is {}, as follows from the scheme", is.as_str());
            Err(SchemeError::new("strength", problem).suggest(is.as_str()))
        }
    }
}

/// Every setting is explained, and none that nothing reads.
fn check_settings(file: &ProviderFile, scheme: &Scheme, handshakes: &Handshakes) -> Result<(), SchemeError> {
    let used: Vec<&str> = scheme.settings().into_iter().chain(handshakes.settings()).collect();
    if let Some(name) = used.iter().find(|name| !file.settings.contains_key(**name)) {
        let problem = format!("does not say what {name} is, which the scheme or a handshake uses");
        let error = SchemeError::new("settings", problem);
        return Err(error.suggest(format!("{name}: where the operator finds it")));
    }
    match file.settings.keys().find(|name| !used.contains(&name.as_str())) {
        Some(name) => Err(SchemeError::new("settings", format!("{name} is used by nothing"))),
        None => Ok(()),
    }
}

fn build_sample(file: Option<&SampleFile>, scheme: &Scheme) -> Result<SampleTemplate, SchemeError> {
    let Some(file) = file else {
        return Ok(SampleTemplate {
            headers: vec![(http::header::CONTENT_TYPE, "application/json".to_owned())],
            body: r#"{"id":"{id}","type":"sample","created":{timestamp}}"#.to_owned(),
        });
    };
    let mut headers = Vec::with_capacity(file.headers.len());
    for (name, value) in &file.headers {
        let name = header_name("headers", name)?;
        if scheme.security_headers().contains(&name) {
            return Err(SchemeError::new("headers", format!("{name} is added by signing")));
        }
        headers.push((name, value.clone()));
    }
    Ok(SampleTemplate {
        headers,
        body: file.body.clone(),
    })
}

fn header_name(key: &str, text: &str) -> Result<HeaderName, SchemeError> {
    HeaderName::try_from(text).map_err(|_| SchemeError::new(key, format!("{text:?} is not a header name")))
}
