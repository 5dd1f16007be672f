//! A signature scheme as it runs: checked once, immutable, shared by every request.
//!
//! [`Scheme::build`] is where a typed scheme becomes a promise. It refuses what would be read in two ways, what would
//! check less than it seems to (a timestamp that nothing signs, a tolerance of a year) and what can never match, each
//! with the key that is wrong and what to write instead. A scheme that was built needs no further checks when a
//! request arrives.

use std::fmt;
use std::time::Duration;

use http::HeaderName;

use super::algorithm::{Algorithm, Class};
use super::extract::trim;
use super::file::{KeyForm, SchemeFile};
use super::jwt::Jwt;
use super::mac::MacKind;
use super::native::{Native, NativeKey};
use super::place::{header_name, refuse_key};
use super::proof::Strength;
use super::recipe::{Recipe, build_key};
use super::source::Source;
use super::template::Config;
use super::token::Bearer;

/// Most headers of `require`.
const REQUIRED_MAX: usize = 8;

/// How a provider signs, ready to verify and to sign. Share it in an `Arc`.
///
/// # The message
///
/// What is signed is written as literal text and placeholders, each at most once:
///
/// - `{body}`, or `{body_sha256}`, its SHA-256 in small hex letters;
/// - `{timestamp}` and `{id}`, from the places that the scheme gives them;
/// - `{url}`, `{url_base}` (without its query) and `{path}` (path and query) of the route's `public_url`;
/// - `{method}`; `{header:NAME}`; `{query:NAME}`, decoded, `{query_lower:NAME}`, in small letters as well; `{field:NAME}`
///   of a `kv` signature;
/// - `{json:a.b}`, text, number as written or truth value, and `{form:NAME}`, decoded; absent ones are empty;
/// - `{sorted_form}`, all fields of the form, decoded and sorted, names and values one after another;
/// - `{setting:NAME}` of the route's `settings`, any number of times; `{secret}` for plain hashes.
///
/// `[id:{query:id};]` is left out when the value inside is absent. `{{`, `}}`, `[[` and `]]` are literal characters.
#[derive(Clone, Debug)]
pub struct Scheme {
    name: String,
    pub(super) plan: Plan,
    pub(super) require: Vec<(HeaderName, String)>,
    security_headers: Vec<HeaderName>,
}

/// How it is verified.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    Recipe(Recipe),
    Bearer(Bearer),
    Jwt(Jwt),
    Native(Native),
}

impl Scheme {
    /// Builds the scheme that `file` describes. `name` is for messages and listings.
    ///
    /// # Errors
    /// The first key that cannot be, with what is wrong and what to write instead.
    pub fn build(name: &str, file: &SchemeFile) -> Result<Scheme, SchemeError> {
        let mut scheme = Scheme {
            name: name.to_owned(),
            plan: build_plan(file)?,
            require: build_require(file)?,
            security_headers: Vec::new(),
        };
        scheme.security_headers = scheme.list_security_headers()?;
        Ok(scheme)
    }

    /// The name it was built with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The headers that a verdict depends on: signature, timestamp, id and whatever else is signed or required.
    ///
    /// The caller refuses requests in which one of these is repeated or has a look-alike (`X_Hub_Signature`), because
    /// the backend may read the other one. A verifier by itself refuses only repetitions that contradict each other.
    pub fn security_headers(&self) -> &[HeaderName] {
        &self.security_headers
    }

    /// How far a signed time may be from ours; `None` when the scheme has no signed time or demands no age, so that
    /// only a replay guard stands between a captured request and its repetition.
    pub fn tolerance(&self) -> Option<Duration> {
        match &self.plan {
            Plan::Recipe(recipe) => recipe.timestamp.as_ref()?.tolerance,
            Plan::Bearer(_) => None,
            Plan::Jwt(jwt) => jwt.age(),
            Plan::Native(native) => native.tolerance(),
        }
    }

    /// Whether a time is signed, of whatever age.
    pub fn signs_time(&self) -> bool {
        match &self.plan {
            Plan::Recipe(recipe) => recipe.timestamp.is_some(),
            Plan::Bearer(_) => false,
            Plan::Jwt(jwt) => jwt.age().is_some(),
            Plan::Native(native) => native.tolerance().is_some(),
        }
    }

    /// What every genuine request proves: [`Strength::Verified`] only where every byte of the body is bound. Some native
    /// schemes prove more for some requests.
    pub fn strength(&self) -> Strength {
        match &self.plan {
            Plan::Recipe(recipe) if recipe.binds_body() => Strength::Verified,
            Plan::Recipe(_) | Plan::Bearer(_) => Strength::Authenticated,
            Plan::Jwt(jwt) => jwt.strength(),
            Plan::Native(native) => native.strength_min(),
        }
    }

    /// The MAC that the route's secrets are for.
    pub(crate) fn mac(&self) -> Option<Algorithm> {
        match &self.plan {
            Plan::Recipe(recipe) => match recipe.class {
                Class::Mac(MacKind::HmacSha1) => Some(Algorithm::HmacSha1),
                Class::Mac(MacKind::HmacSha256) => Some(Algorithm::HmacSha256),
                Class::Mac(MacKind::HmacSha384) => Some(Algorithm::HmacSha384),
                Class::Mac(MacKind::HmacSha512) => Some(Algorithm::HmacSha512),
                _ => None,
            },
            Plan::Bearer(_) | Plan::Jwt(_) | Plan::Native(_) => None,
        }
    }

    /// Whether what is signed contains the body as it is: not a hash of it, nor parts.
    pub(crate) fn signs_plain_body(&self) -> bool {
        matches!(&self.plan, Plan::Recipe(recipe) if recipe.template.has_body())
    }

    /// Whether the scheme has an answer of its own to a challenge.
    pub(crate) fn answers_challenges(&self) -> bool {
        matches!(&self.plan, Plan::Native(native) if native.answers_challenges())
    }

    /// How a secret's text becomes the key, where that is a part of the scheme as typed.
    pub fn key_form(&self) -> Option<KeyForm> {
        match &self.plan {
            Plan::Recipe(recipe) => Some(recipe.key),
            Plan::Bearer(_) => Some(KeyForm::Utf8),
            Plan::Jwt(_) | Plan::Native(_) => None,
        }
    }

    /// Whether the body is a part of what is signed.
    pub fn signs_body(&self) -> bool {
        self.strength() == Strength::Verified
    }

    /// Whether a member of the JSON body is signed although the body as a whole is not.
    pub fn signs_member(&self, path: &super::JsonPath) -> bool {
        self.signs(&Source::Json(path.clone()))
    }

    /// Whether a field of the form is signed although the body as a whole is not.
    pub fn signs_field(&self, name: &str) -> bool {
        self.signs(&Source::Form(name.to_owned()))
    }

    fn signs(&self, source: &Source) -> bool {
        match &self.plan {
            Plan::Recipe(recipe) => recipe.template.is_certain(source),
            Plan::Bearer(_) | Plan::Jwt(_) | Plan::Native(_) => false,
        }
    }

    /// The header of the signed event id, if the scheme signs one.
    pub fn id_header(&self) -> Option<&HeaderName> {
        match &self.plan {
            Plan::Recipe(recipe) => recipe.id.as_ref().map(|(header, _)| header),
            Plan::Bearer(_) | Plan::Jwt(_) | Plan::Native(_) => None,
        }
    }

    /// Whether the verifier itself finds a signed event id, in a header or elsewhere.
    pub fn signs_id(&self) -> bool {
        match &self.plan {
            Plan::Native(native) => native.signs_id(),
            Plan::Jwt(jwt) => jwt.signs_id(),
            Plan::Recipe(_) | Plan::Bearer(_) => self.id_header().is_some(),
        }
    }

    /// Whether the route has to say its `public_url`.
    pub fn needs_public_url(&self) -> bool {
        match &self.plan {
            Plan::Recipe(recipe) => recipe
                .template
                .config()
                .any(|config| !matches!(config, Config::Setting(_))),
            Plan::Bearer(_) => false,
            Plan::Jwt(jwt) => jwt.uses_url(),
            Plan::Native(native) => native.uses_public_url(),
        }
    }

    /// Whether the route has secrets. Schemes whose keys are fetched have none.
    pub fn needs_secrets(&self) -> bool {
        match &self.plan {
            Plan::Recipe(_) | Plan::Bearer(_) => true,
            Plan::Jwt(jwt) => !jwt.fetches_keys(),
            Plan::Native(native) => !matches!(native.key(), NativeKey::Published | NativeKey::Pinned),
        }
    }

    /// Whether some of the provider's messages ask for consent to a subscription, which a route may give.
    pub fn asks_consent(&self) -> bool {
        matches!(&self.plan, Plan::Native(native) if native.asks_consent())
    }

    /// The names of the settings that the route has to say.
    pub fn settings(&self) -> Vec<&str> {
        let mut names: Vec<&str> = match &self.plan {
            Plan::Recipe(recipe) => recipe.template.config().filter_map(setting).collect(),
            Plan::Bearer(_) => Vec::new(),
            Plan::Jwt(jwt) => jwt.settings().collect(),
            Plan::Native(native) => native.settings().to_vec(),
        };
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Each header has one role: one that is two things at once would let one value stand for both.
    fn list_security_headers(&self) -> Result<Vec<HeaderName>, SchemeError> {
        let mut headers: Vec<HeaderName> = Vec::new();
        match &self.plan {
            Plan::Recipe(recipe) => recipe.list_headers(&mut headers)?,
            Plan::Bearer(bearer) => headers.extend(bearer.header().cloned()),
            Plan::Jwt(jwt) => headers.extend(jwt.security_headers().cloned()),
            Plan::Native(native) => headers.extend(native.security_headers()),
        }
        for (name, _) in &self.require {
            if headers.contains(name) {
                let error = SchemeError::new("require", format!("{name} is used for something else already"));
                return Err(error);
            }
            headers.push(name.clone());
        }
        Ok(headers)
    }
}

fn build_plan(file: &SchemeFile) -> Result<Plan, SchemeError> {
    let algorithm = match (file.algorithm, &file.jwt, file.native) {
        (Some(algorithm), None, None) => algorithm,
        (None, Some(jwt), None) => {
            refuse_rest(file)?;
            return Jwt::build(jwt).map(Plan::Jwt);
        }
        (None, None, Some(native)) => {
            refuse_rest(file)?;
            return Ok(Plan::Native(native));
        }
        _ => {
            let error = SchemeError::new("algorithm", "is missing, or there beside `jwt` or `native`");
            return Err(error.suggest("one of the three: hmac-sha256 is what most providers use"));
        }
    };
    let class = algorithm.class();
    if matches!(class, Class::Token | Class::Basic) {
        build_key(file, class)?;
        let belongs = "algorithms that sign";
        refuse_key(file.message.is_some(), "message", belongs)?;
        refuse_key(file.timestamp.is_some(), "timestamp", belongs)?;
        refuse_key(file.id.is_some(), "id", belongs)?;
        return Bearer::build(file.signature.as_ref(), algorithm == Algorithm::Basic).map(Plan::Bearer);
    }
    Recipe::build(file, class).map(Plan::Recipe)
}

/// What a token or a native verifier brings along itself.
fn refuse_rest(file: &SchemeFile) -> Result<(), SchemeError> {
    let belongs = "schemes with an `algorithm`";
    refuse_key(file.key.is_some(), "key", belongs)?;
    refuse_key(file.message.is_some(), "message", belongs)?;
    refuse_key(file.signature.is_some(), "signature", belongs)?;
    refuse_key(file.timestamp.is_some(), "timestamp", belongs)?;
    refuse_key(file.id.is_some(), "id", belongs)
}

fn build_require(file: &SchemeFile) -> Result<Vec<(HeaderName, String)>, SchemeError> {
    let mut required = Vec::with_capacity(file.require.len());
    if file.require.len() > REQUIRED_MAX {
        return Err(SchemeError::new(
            "require",
            format!("has more than {REQUIRED_MAX} headers"),
        ));
    }
    for (name, value) in &file.require {
        let plain = value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if value.is_empty() || !plain || trim(value.as_bytes()).len() != value.len() {
            return Err(SchemeError::new(
                "require",
                format!("{value:?} cannot be the value of a header"),
            ));
        }
        required.push((header_name("require", name)?, value.clone()));
    }
    Ok(required)
}

fn setting(config: &Config) -> Option<&str> {
    match config {
        Config::Setting(name) => Some(name),
        Config::Url | Config::UrlBase | Config::Path => None,
    }
}

/// What is wrong with a scheme or a provider as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemeError {
    /// The key that is wrong, from the root of the file or item: `signature.separator`.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead, where that can be said.
    pub suggestion: Option<String>,
}

impl SchemeError {
    pub(crate) fn new(key: &str, problem: impl Into<String>) -> SchemeError {
        SchemeError {
            key: key.to_owned(),
            problem: problem.into(),
            suggestion: None,
        }
    }

    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> SchemeError {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same error seen from one level further out.
    pub(crate) fn under(mut self, parent: &str) -> SchemeError {
        self.key = format!("{parent}.{}", self.key);
        self
    }
}

impl fmt::Display for SchemeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SchemeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::testing::{GITHUB, STANDARD_WEBHOOKS, STRIPE, scheme};

    /// The key that a typed scheme is refused for; `None` when it is built.
    fn refused(yaml: &str) -> Option<String> {
        let file: SchemeFile = serde_yaml::from_str(yaml).unwrap();
        Scheme::build("test", &file).err().map(|e| e.key)
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        // A scheme that checks less than its file says is worse than none.
        let kv = "format: kv, separator: \",\", fields: [v1]";
        let rows = [
            (GITHUB, "{body}", "constant", "message"),
            (GITHUB, "{body}", "{timestamp}.{body}", "timestamp"),
            (GITHUB, "{body}", "{id}.{body}", "id"),
            (GITHUB, "{body}", "{what}", "message"),
            (GITHUB, "X-Hub-Signature-256", "X Hub", "signature.header"),
            (GITHUB, "X-Hub-Signature-256", "\"\"", "signature.header"),
            (GITHUB, "sha256=", "caf\u{e9}", "signature.prefix"),
            (GITHUB, "sha256=", " sha256", "signature.prefix"),
            (
                GITHUB,
                "encoding: hex",
                "encoding: hex, separator: \",\"",
                "signature.separator",
            ),
            (
                GITHUB,
                "encoding: hex",
                "encoding: hex, assign: \":\"",
                "signature.assign",
            ),
            (
                GITHUB,
                "encoding: hex",
                "encoding: hex, fields: [v1]",
                "signature.fields",
            ),
            (GITHUB, "prefix: \"sha256=\"", "format: list", "signature.separator"),
            (
                GITHUB,
                "prefix: \"sha256=\"",
                "format: list, separator: a",
                "signature.separator",
            ),
            (
                GITHUB,
                "encoding: hex",
                "encoding: hex, format: list, separator: \",\"",
                "signature.prefix",
            ),
            (
                GITHUB,
                "encoding: hex",
                "encoding: hex, format: kv, separator: \",\", fields: [a]",
                "signature.prefix",
            ),
            (STRIPE, kv, "format: kv, fields: [v1]", "signature.separator"),
            (
                STRIPE,
                kv,
                "format: kv, separator: \", \", fields: [v1]",
                "signature.separator",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \"\", fields: [v1]",
                "signature.separator",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \"=\", fields: [v1]",
                "signature.assign",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \";\", assign: \" \", fields: [v1]",
                "signature.assign",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \";\", assign: ab, fields: [v1]",
                "signature.assign",
            ),
            (STRIPE, kv, "format: kv, separator: \",\"", "signature.fields"),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: []",
                "signature.fields",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: [v1, v1]",
                "signature.fields",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: [\"\"]",
                "signature.fields",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: [\"v1=\"]",
                "signature.fields",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: [a,b,c,d,e,f,g,h,i]",
                "signature.fields",
            ),
            (
                STRIPE,
                kv,
                "format: kv, separator: \",\", fields: [t]",
                "timestamp.field",
            ),
            (STRIPE, "separator: \",\"", "separator: \"/\"", ""),
            (
                STANDARD_WEBHOOKS,
                "separator: \" \"",
                "separator: \"/\"",
                "signature.separator",
            ),
            (STRIPE, kv, "format: list, separator: \",\"", "timestamp.field"),
            (STRIPE, "field: t,", "field: \"t=\",", "timestamp.field"),
            (STRIPE, "field: t,", "field: t, header: T,", "timestamp"),
            (STRIPE, "field: t,", "", "timestamp"),
            (STRIPE, "field: t,", "header: \"T:\",", "timestamp.header"),
            (STRIPE, "field: t,", "header: stripe-signature,", "timestamp.header"),
            (STRIPE, "{timestamp}.{body}", "{body}", "timestamp"),
            (STRIPE, "tolerance: 5m", "tolerance: 0s", "timestamp.tolerance"),
            (STRIPE, "tolerance: 5m", "tolerance: 999ms", "timestamp.tolerance"),
            (STRIPE, "tolerance: 5m", "tolerance: 1s", ""),
            (STRIPE, "tolerance: 5m", "tolerance: 2d", ""),
            (STRIPE, "tolerance: 5m", "tolerance: 172801s", "timestamp.tolerance"),
            (STANDARD_WEBHOOKS, "{id}.", "", "id"),
            (STANDARD_WEBHOOKS, "webhook-id", "webhook-timestamp", "id.header"),
            (STANDARD_WEBHOOKS, "webhook-id", "Webhook-Signature", "id.header"),
            (STANDARD_WEBHOOKS, "{id}.{timestamp}", "{id}{timestamp}", "message"),
        ];
        for (yaml, from, to, key) in rows {
            assert!(yaml.contains(from), "{from:?}");
            let expected = Some(key.to_owned()).filter(|key| !key.is_empty());
            assert_eq!(refused(&yaml.replace(from, to)), expected, "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn what_is_typed_wrong_is_not_guessed() {
        // A misspelt tolerance would switch the age check off, a default algorithm would choose for the user.
        let rows = [
            (STRIPE, "tolerance: 5m", "tolerance: 300"),
            (STRIPE, "tolerance: 5m", "tolerance: five"),
            (STRIPE, "tolerance: 5m", "tolerance: on"),
            (STRIPE, "algorithm: hmac-sha256", "algorithm: sha256"),
            (STRIPE, "algorithm: hmac-sha256", "algorithm: token"),
            (
                STRIPE,
                "algorithm: hmac-sha256",
                "algorithm: hmac-sha256\n    native: twilio",
            ),
            (STRIPE, "tolerance: 5m", "tolerence: 5m"),
            (STRIPE, ", tolerance: 5m", ""),
            (STRIPE, "unit: s,", ""),
            (STRIPE, "unit: s", "unit: ns"),
            (STRIPE, "algorithm: hmac-sha256", "mac: hmac-sha256"),
            (STRIPE, "algorithm: hmac-sha256", "algorithm: hmac-md5"),
            (STRIPE, "algorithm: hmac-sha256", "algorithm: none"),
            (STRIPE, "algorithm: hmac-sha256", ""),
            (STRIPE, "key: utf8", ""),
            (STRIPE, "key: utf8", "key: base64url"),
            (STRIPE, ", encoding: hex", ""),
            (STRIPE, "encoding: hex", "encoding: HEX"),
            (STRIPE, "format: kv", "format: jwt"),
            (STRIPE, "header: Stripe-Signature, ", ""),
        ];
        for (yaml, from, to) in rows {
            assert!(yaml.contains(from), "{from:?}");
            let typed = serde_yaml::from_str::<SchemeFile>(&yaml.replace(from, to));
            let built = typed.is_ok_and(|file| Scheme::build("test", &file).is_ok());
            assert!(!built, "{from:?} -> {to:?}");
        }
    }

    #[test]
    fn every_header_that_decides_is_listed() {
        // A header that is missing here can be sent twice: one value for us and one for the backend.
        let listed = |yaml| {
            scheme(yaml)
                .security_headers()
                .iter()
                .map(|h| h.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(GITHUB), ["x-hub-signature-256"]);
        assert_eq!(listed(STRIPE), ["stripe-signature"]);
        assert_eq!(
            listed(STANDARD_WEBHOOKS),
            ["webhook-signature", "webhook-timestamp", "webhook-id"]
        );
    }

    #[test]
    fn an_error_names_key_problem_and_way_out() {
        // Somebody writing a scheme would have to guess.
        let file = serde_yaml::from_str(&STRIPE.replace("{timestamp}.", "")).unwrap();
        let error = Scheme::build("mine", &file).unwrap_err().under("scheme");
        let expected = "scheme.timestamp: is not signed, so anybody can change it; \
                        put {timestamp} into the message or remove this key";
        assert_eq!(error.to_string(), expected);
    }
}
