//! Tokens made as a provider would make them: for `hookward sign`, `hookward send` and tests.
//!
//! The same scheme as verification, so that the two cannot drift apart. A claim that must have one of several values
//! gets the first; one that must be absent is left out.

use http::HeaderName;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{Algorithm, BodyDigest, ClaimRule, Jwt, Place};
use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::signature::encoding::to_jose;
use crate::signature::key::{self, KeyError};
use crate::signature::mac::Mac;
use crate::signature::native::{PublicUrl, Settings};
use crate::signature::pubkey::{EcdsaForm, PrivateKey};

/// What a signed request has in place of the unsigned one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::signature) enum Signed {
    /// One more header.
    Header(HeaderName, String),
    /// Another body.
    Body(Vec<u8>),
}

/// What signs a token.
pub(in crate::signature) enum TokenSigner {
    Mac(Box<Mac>),
    Private(PrivateKey),
}

/// What is signed.
#[derive(Clone, Copy)]
pub(in crate::signature) struct Unsigned<'a> {
    pub(in crate::signature) body: &'a [u8],
    /// The event's id, for schemes that claim one.
    pub(in crate::signature) id: &'a str,
    pub(in crate::signature) now: UnixMillis,
    pub(in crate::signature) settings: &'a Settings,
    pub(in crate::signature) public_url: Option<&'a PublicUrl>,
}

impl Jwt {
    /// Reads the secret of one who signs: the shared one, or a private key.
    ///
    /// # Errors
    /// [`KeyError`] when it is neither.
    pub(in crate::signature) fn read_signer(&self, secret: &Secret) -> Result<TokenSigner, KeyError> {
        match (self.algorithm, self.key.shared()) {
            (Algorithm::Mac(kind), Some(form)) => {
                let key = key::decode(form, "signing", secret)?;
                Ok(TokenSigner::Mac(Box::new(Mac::keyed(kind, &key))))
            }
            _ => match PrivateKey::parse(secret) {
                Ok(key) => Ok(TokenSigner::Private(key)),
                Err(why) => {
                    let id = "signing".to_owned();
                    Err(KeyError::Public { id, why })
                }
            },
        }
    }

    /// Signs a request; `body` is what the provider has to say.
    ///
    /// # Errors
    /// [`KeyError::Unsignable`] when the key cannot sign for this scheme, a setting or the URL is missing, or the body
    /// cannot be what the scheme makes of it.
    pub(in crate::signature) fn sign(&self, request: Unsigned<'_>, signer: &TokenSigner) -> Result<Signed, KeyError> {
        // About detached content the header is all there is to claim anything.
        let mut header = match self.detached {
            true => self.claims(request)?,
            false => Map::new(),
        };
        header.insert("alg".to_owned(), self.algorithm.jose_name().into());
        let header = to_jose(Value::Object(header).to_string().as_bytes());
        let content = match (self.detached, &self.place) {
            (true, _) => request.body.to_vec(),
            (false, Place::Body | Place::Json { .. }) => object(request.body)?,
            (false, Place::Header { .. }) => Value::Object(self.claims(request)?).to_string().into_bytes(),
        };
        let signed = format!("{header}.{}", to_jose(&content));
        let signature = to_jose(&self.signature(signer, signed.as_bytes())?);
        let token = match self.detached {
            true => format!("{header}..{signature}"),
            false => format!("{signed}.{signature}"),
        };
        Ok(match &self.place {
            Place::Header { name, prefix } => Signed::Header(name.clone(), format!("{prefix}{token}")),
            Place::Body => Signed::Body(token.into_bytes()),
            Place::Json { name } => Signed::Body(json!({ name.as_str(): token }).to_string().into_bytes()),
        })
    }

    fn signature(&self, signer: &TokenSigner, signed: &[u8]) -> Result<Vec<u8>, KeyError> {
        match (signer, self.algorithm) {
            (TokenSigner::Mac(mac), Algorithm::Mac(_)) => {
                let mut mac = mac.clone();
                mac.update(signed);
                Ok(mac.finish().as_bytes().to_vec())
            }
            (TokenSigner::Private(key), Algorithm::Public(algorithm)) => key
                .sign(algorithm, EcdsaForm::Raw, signed)
                .map_err(|_| KeyError::Unsignable("the key is for another algorithm")),
            _ => Err(KeyError::Unsignable("the key is for another algorithm")),
        }
    }

    fn claims(&self, request: Unsigned<'_>) -> Result<Map<String, Value>, KeyError> {
        let mut claims = Map::new();
        for (name, rule) in &self.claims {
            let value = match rule {
                ClaimRule::Flag(flag) => Value::Bool(*flag),
                ClaimRule::AnyOf(patterns) => {
                    let first = patterns.first();
                    let written = first.and_then(|first| first.written(request.settings, request.public_url));
                    Value::String(written.ok_or(KeyError::Unsignable("a claim needs a setting or the public URL"))?)
                }
            };
            claims.insert(name.clone(), value);
        }
        if let Some(rule) = &self.body
            && !(rule.absent_when_empty && request.body.is_empty())
        {
            let text = match rule.digest {
                BodyDigest::Sha256(encoding) => encoding.encode(&Sha256::digest(request.body)),
                BodyDigest::Whole => String::from_utf8(request.body.to_vec())
                    .map_err(|_| KeyError::Unsignable("a claim cannot hold a body that is no text"))?,
            };
            claims.insert(rule.name.clone(), Value::String(text));
        }
        if self.age.is_some() {
            claims.insert(self.time.clone(), request.now.seconds().into());
        }
        if let Some(name) = &self.id {
            claims.insert(name.clone(), request.id.into());
        }
        Ok(claims)
    }
}

/// The body as it is, if a token can hold it as its claims.
fn object(body: &[u8]) -> Result<Vec<u8>, KeyError> {
    match serde_json::from_slice::<Map<String, Value>>(body) {
        Ok(_) => Ok(body.to_vec()),
        Err(_) => Err(KeyError::Unsignable("a token holds a JSON object")),
    }
}
