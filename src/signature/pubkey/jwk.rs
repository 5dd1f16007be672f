//! JSON Web Keys (RFC 7517, 7518, 8037) and sets of them.
//!
//! A key given in the configuration is one JWK; a set comes from the guarded fetcher. Members that this house does not
//! know are skipped, as the RFC wants; members that would make a key something else are not: a private or symmetric
//! key is refused, a member said twice is refused, a key that is for encryption verifies nothing. In a set, one key that
//! cannot be used does not spoil the others: providers put RSA, EC and encryption keys side by side.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{PublicKey, PublicKeyError};
use crate::signature::encoding::from_jose;

/// Most keys of a set that are looked at.
const SET_KEYS_MAX: usize = 64;

/// The members that matter.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    /// Private parts of every kind, and the whole of a symmetric key.
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    dp: Option<IgnoredAny>,
    dq: Option<IgnoredAny>,
    qi: Option<IgnoredAny>,
    oth: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
}

pub(super) fn read(text: &[u8]) -> Result<PublicKey, PublicKeyError> {
    let jwk: Jwk = serde_json::from_slice(text).map_err(|_| PublicKeyError::Malformed("not a JSON Web Key"))?;
    jwk.into_key()
}

impl Jwk {
    fn into_key(self) -> Result<PublicKey, PublicKeyError> {
        let private = [
            &self.d, &self.p, &self.q, &self.dp, &self.dq, &self.qi, &self.oth, &self.k,
        ];
        if private.iter().any(|member| member.is_some()) {
            return Err(PublicKeyError::Secret);
        }
        let signs = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        if !signs || !self.key_ops.as_ref().is_none_or(verifies) {
            return Err(PublicKeyError::WrongKind);
        }
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) if self.y.is_none() => PublicKey::from_ed25519(&coordinate(self.x.as_deref())?)?,
            ("EC", Some("P-256")) => {
                let (x, y) = (coordinate(self.x.as_deref())?, coordinate(self.y.as_deref())?);
                PublicKey::from_p256(&[[4].as_slice(), &x, &y].concat())?
            }
            ("RSA", None) => PublicKey::from_rsa(&number(self.n.as_deref())?, &number(self.e.as_deref())?)?,
            _ => {
                return Err(PublicKeyError::Malformed(
                    "a JSON Web Key of a kind that no scheme uses",
                ));
            }
        };
        Ok(PublicKey {
            kid: self.kid.map(String::into_boxed_str),
            alg: self.alg.map(String::into_boxed_str),
            ..key
        })
    }
}

/// A coordinate: exactly 32 bytes (RFC 7518 section 6.2.1.2).
fn coordinate(text: Option<&str>) -> Result<[u8; 32], PublicKeyError> {
    let bytes = text.and_then(|text| from_jose(text.as_bytes()));
    let bytes = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
    bytes.ok_or(PublicKeyError::Malformed(
        "a coordinate that is not 32 bytes of base64url",
    ))
}

/// A number: big-endian, in as few bytes as it takes (RFC 7518 section 2).
fn number(text: Option<&str>) -> Result<Vec<u8>, PublicKeyError> {
    let bytes = text.and_then(|text| from_jose(text.as_bytes()));
    match bytes {
        Some(bytes) if bytes.first().is_some_and(|top| *top != 0) => Ok(bytes),
        _ => Err(PublicKeyError::Malformed(
            "a number that is not base64url without leading zeros",
        )),
    }
}

/// The public keys of a provider, from its JWK set.
#[derive(Clone, Debug)]
pub(in crate::signature) struct KeySet {
    keys: Vec<PublicKey>,
}

impl KeySet {
    /// Reads `{"keys": [...]}`; keys that no scheme uses are left out.
    ///
    /// # Errors
    /// [`PublicKeyError::Malformed`] when it is no such document, has more than 64 keys or none that can be used;
    /// [`PublicKeyError::Secret`] when it gives a private or symmetric key away, since then nobody knows who signs.
    pub(in crate::signature) fn parse(text: &[u8]) -> Result<KeySet, PublicKeyError> {
        #[derive(Deserialize)]
        struct Set<'a> {
            #[serde(borrow)]
            keys: Vec<&'a serde_json::value::RawValue>,
        }
        let not_a_set = |_| PublicKeyError::Malformed("not a JSON Web Key set");
        let set: Set<'_> = serde_json::from_slice(text).map_err(not_a_set)?;
        if set.keys.len() > SET_KEYS_MAX {
            return Err(PublicKeyError::Malformed("more than 64 keys in a set"));
        }
        let mut keys = Vec::new();
        for raw in set.keys {
            match read(raw.get().as_bytes()) {
                Ok(key) => keys.push(key),
                Err(PublicKeyError::Secret) => return Err(PublicKeyError::Secret),
                Err(_) => {}
            }
        }
        match keys.is_empty() {
            true => Err(PublicKeyError::Malformed("a set without a key that can be used")),
            false => Ok(KeySet { keys }),
        }
    }

    /// The keys that a token which names `kid` may be signed with: those of that name, or all when it names none.
    pub(in crate::signature) fn named(&self, kid: Option<&str>) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().filter(move |key| kid.is_none() || key.kid() == kid)
    }
}
