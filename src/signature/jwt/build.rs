//! From a token scheme as typed to one that makes sense.
//!
//! Called at start, by whoever builds a scheme. What would prove less than it seems to is refused here, with the key
//! that is wrong: a shared secret for a public algorithm, a time that nobody compares, a second statement about the body.

use http::HeaderName;
use sha2::{Digest as _, Sha256};

use super::file::{BodyClaimFile, BodyHash, ClaimFile, EmptyBody, JwtAlgorithm, JwtFile, JwtKeyForm, PlaceFile};
use super::{Algorithm, BodyClaim, BodyDigest, ClaimRule, Jwt, Place};
use crate::signature::mac::MacKind;
use crate::signature::native::{Message, PublicUrl, Settings};
use crate::signature::pubkey::SignatureAlgorithm;
use crate::signature::scheme::SchemeError;

/// Most claims that are compared.
const CLAIMS_MAX: usize = 16;

impl Jwt {
    /// Reads a token scheme.
    ///
    /// # Errors
    /// The first key that makes no sense beside the others.
    pub(in crate::signature) fn build(file: &JwtFile) -> Result<Jwt, SchemeError> {
        let algorithm = algorithm(file.algorithm);
        check_key(file, algorithm)?;
        let place = place(&file.place)?;
        check_detached(file, &place)?;
        if file.body.is_some() && !matches!(place, Place::Header { .. }) {
            let error = SchemeError::new("jwt.body", "the token is the body already");
            return Err(error.suggest("leave it out"));
        }
        if file.time.is_some() && file.age.is_none() {
            return Err(SchemeError::new("jwt.time", "without `age` no time is compared"));
        }
        if file.claims.len() > CLAIMS_MAX {
            return Err(SchemeError::new("jwt.claims", format!("more than {CLAIMS_MAX} claims")));
        }
        let claims = file.claims.iter().map(|(name, claim)| claim_rule(name, claim));
        let jwks = file
            .keys
            .as_ref()
            .map(|keys| Pattern::parse("jwt.keys.jwks", &keys.jwks));
        Ok(Jwt {
            algorithm,
            key: file.key,
            place,
            detached: file.detached,
            body: file.body.as_ref().map(body_claim).transpose()?,
            claims: claims.collect::<Result<_, _>>()?,
            age: file.age,
            time: file.time.clone().unwrap_or_else(|| "iat".to_owned()),
            id: file.id.clone(),
            jwks: jwks.transpose()?,
        })
    }

    /// The settings that the scheme uses.
    pub(in crate::signature) fn settings(&self) -> impl Iterator<Item = &str> {
        self.patterns().flat_map(Pattern::settings)
    }

    /// Whether a route needs a public URL.
    pub(in crate::signature) fn uses_url(&self) -> bool {
        self.patterns().any(Pattern::uses_url)
    }

    fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        let claims = self.claims.iter().flat_map(|(_, rule)| rule.patterns());
        claims.chain(&self.jwks)
    }
}

impl ClaimRule {
    fn patterns(&self) -> &[Pattern] {
        match self {
            ClaimRule::AnyOf(patterns) => patterns,
            ClaimRule::Flag(_) => &[],
        }
    }
}

fn algorithm(typed: JwtAlgorithm) -> Algorithm {
    match typed {
        JwtAlgorithm::HS256 => Algorithm::Mac(MacKind::HmacSha256),
        JwtAlgorithm::HS384 => Algorithm::Mac(MacKind::HmacSha384),
        JwtAlgorithm::HS512 => Algorithm::Mac(MacKind::HmacSha512),
        JwtAlgorithm::RS256 => Algorithm::Public(SignatureAlgorithm::RsaSha256),
        JwtAlgorithm::RS512 => Algorithm::Public(SignatureAlgorithm::RsaSha512),
        JwtAlgorithm::PS256 => Algorithm::Public(SignatureAlgorithm::RsaPssSha256),
        JwtAlgorithm::ES256 => Algorithm::Public(SignatureAlgorithm::EcdsaP256Sha256),
        JwtAlgorithm::EdDSA => Algorithm::Public(SignatureAlgorithm::Ed25519),
    }
}

fn check_key(file: &JwtFile, algorithm: Algorithm) -> Result<(), SchemeError> {
    let wrong = |problem: &str, suggestion: &str| Err(SchemeError::new("jwt.key", problem).suggest(suggestion));
    let fetched = file.key == JwtKeyForm::Jwks;
    match algorithm {
        Algorithm::Mac(_) if file.key.shared().is_none() => {
            return wrong("this algorithm takes a shared secret", "write utf8, base64 or hex");
        }
        Algorithm::Public(_) if file.key.public().is_none() && !fetched => {
            return wrong(
                "this algorithm takes a public key",
                "write pem, jwk, jwks, base64 or hex",
            );
        }
        Algorithm::Mac(_) | Algorithm::Public(_) => {}
    }
    match &file.keys {
        Some(keys) if fetched && !keys.jwks.starts_with("https://") => {
            Err(SchemeError::new("jwt.keys.jwks", "does not begin with https://"))
        }
        None if fetched => Err(SchemeError::new(
            "jwt.keys",
            "key: jwks needs to know where to fetch them",
        )),
        Some(_) if !fetched => Err(SchemeError::new("jwt.keys", "keys are fetched only with key: jwks")),
        _ => Ok(()),
    }
}

fn place(typed: &PlaceFile) -> Result<Place, SchemeError> {
    let prefix = typed.prefix.clone().unwrap_or_default();
    match (&typed.header, typed.body, &typed.json) {
        (Some(header), false, None) => match HeaderName::from_bytes(header.as_bytes()) {
            Ok(name) => Ok(Place::Header { name, prefix }),
            Err(_) => Err(SchemeError::new(
                "jwt.in.header",
                format!("{header:?} is no name of a header"),
            )),
        },
        _ if typed.prefix.is_some() => Err(SchemeError::new("jwt.in.prefix", "only a header has a prefix")),
        (None, true, None) => Ok(Place::Body),
        (None, false, Some(name)) => Ok(Place::Json { name: name.clone() }),
        _ => Err(SchemeError::new("jwt.in", "needs exactly one of header, body and json")),
    }
}

fn check_detached(file: &JwtFile, place: &Place) -> Result<(), SchemeError> {
    if !file.detached {
        return Ok(());
    }
    match place {
        Place::Body | Place::Json { .. } => Err(SchemeError::new("jwt.detached", "the body cannot be in itself")),
        Place::Header { .. } if file.body.is_some() => {
            let error = SchemeError::new("jwt.body", "detached content is the body already");
            Err(error.suggest("leave it out"))
        }
        Place::Header { .. } => Ok(()),
    }
}

fn body_claim(typed: &BodyClaimFile) -> Result<BodyClaim, SchemeError> {
    let digest = match (typed.hash, typed.encoding) {
        (BodyHash::Sha256, Some(encoding)) => BodyDigest::Sha256(encoding),
        (BodyHash::None, None) => BodyDigest::Whole,
        (BodyHash::Sha256, None) => return Err(SchemeError::new("jwt.body.encoding", "a digest is written somehow")),
        (BodyHash::None, Some(_)) => {
            return Err(SchemeError::new("jwt.body.encoding", "the body itself is not encoded"));
        }
    };
    Ok(BodyClaim {
        name: typed.claim.clone(),
        digest,
        absent_when_empty: typed.empty == EmptyBody::Absent,
    })
}

fn claim_rule(name: &str, typed: &ClaimFile) -> Result<(String, ClaimRule), SchemeError> {
    let key = format!("jwt.claims.{name}");
    let rule = match typed {
        ClaimFile::Flag(flag) => ClaimRule::Flag(*flag),
        ClaimFile::Text(text) => ClaimRule::AnyOf(vec![Pattern::parse(&key, text)?]),
        ClaimFile::AnyOf(texts) if texts.is_empty() => return Err(SchemeError::new(&key, "no value is allowed")),
        ClaimFile::AnyOf(texts) => {
            let patterns = texts.iter().map(|text| Pattern::parse(&key, text));
            ClaimRule::AnyOf(patterns.collect::<Result<_, _>>()?)
        }
    };
    Ok((name.to_owned(), rule))
}

/// A text with values of the route in it. None of them comes from a request.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Setting(String),
    Url,
    UrlSha256,
}

impl Pattern {
    fn parse(key: &str, text: &str) -> Result<Pattern, SchemeError> {
        let unknown = |what: &str| {
            let error = SchemeError::new(key, format!("{what:?} is no value of a route"));
            Err(error.suggest("{setting:NAME}, {url} and {url_sha256} are"))
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, opened)) = rest.split_once('{') {
            let Some((name, after)) = opened.split_once('}') else {
                return unknown(opened);
            };
            parts.push(Part::Literal(literal.to_owned()));
            parts.push(match (name, name.strip_prefix("setting:")) {
                ("url", _) => Part::Url,
                ("url_sha256", _) => Part::UrlSha256,
                (_, Some(setting)) if !setting.is_empty() => Part::Setting(setting.to_owned()),
                _ => return unknown(name),
            });
            rest = after;
        }
        parts.push(Part::Literal(rest.to_owned()));
        match text.is_empty() {
            true => Err(SchemeError::new(key, "is empty")),
            false => Ok(Pattern(parts)),
        }
    }

    /// The text; `None` when the route lacks a value that it names.
    pub(super) fn written(&self, settings: &Settings, url: Option<&PublicUrl>) -> Option<String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Setting(name) => text.push_str(settings.find(name)?),
                Part::Url => text.push_str(url?.as_str()),
                Part::UrlSha256 => text.push_str(&hex::encode(Sha256::digest(url?.as_str()))),
            }
        }
        Some(text)
    }

    /// A pattern with the URL in it speaks of this request only if the request came with the URL's query.
    pub(super) fn fits_target(&self, message: &Message<'_>) -> bool {
        !self.uses_url() || message.public_url.is_some_and(|url| url.query() == message.query())
    }

    fn uses_url(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Url | Part::UrlSha256))
    }

    fn settings(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Setting(name) => Some(name.as_str()),
            Part::Literal(_) | Part::Url | Part::UrlSha256 => None,
        })
    }
}
