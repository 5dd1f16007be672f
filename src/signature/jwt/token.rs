//! A compact token: its three parts, and what its header says.
//!
//! Nothing here is proven yet. The header is read for the algorithm, which has to be the pinned one, the name of a key,
//! how detached content is written, and what it claims about that content. What a header orders beyond that is refused (`crit`) or of
//! no account (`jku`, `jwk`, `x5u`, `typ`, `cty`).

use std::borrow::Cow;

use subtle::ConstantTimeEq as _;

use super::claims::{Claims, Strict, StrictObject};
use crate::signature::encoding::{from_jose, to_jose};
use crate::signature::mac::{Mac, Tag};
use crate::signature::proof::Failure;

/// Longest header once decoded, in bytes; a chain of certificates fits.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Longest name of a key, in bytes.
const KID_BYTES_MAX: usize = 256;

pub(in crate::signature) struct Token<'m> {
    /// The text, whose first part is signed as it is written.
    text: Cow<'m, [u8]>,
    /// Where header, content and signature end and begin in it.
    content_at: usize,
    content_end: usize,
    header: Header,
    content: Option<Vec<u8>>,
    signature: Vec<u8>,
}

struct Header {
    members: Claims,
    alg: String,
    kid: Option<String>,
    /// RFC 7797: detached content is signed as it is, not in base64.
    is_plain: bool,
}

impl<'m> Token<'m> {
    /// Reads `header.content.signature`, or `header..signature` when the content is `detached`.
    pub(in crate::signature) fn parse(text: Cow<'m, [u8]>, detached: bool) -> Result<Token<'m>, Failure> {
        let mut parts = text.split(|byte| *byte == b'.');
        let (Some(head), Some(content), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::Malformed);
        };
        let decoded = |part: &[u8]| from_jose(part).ok_or(Failure::Malformed);
        let header = Header::parse(&decoded(head)?, detached)?;
        if content.is_empty() != detached || signature.is_empty() {
            return Err(Failure::Malformed);
        }
        let content_at = head.len().saturating_add(1);
        Ok(Token {
            content_at,
            content_end: content_at.saturating_add(content.len()),
            header,
            content: match detached {
                true => None,
                false => Some(decoded(content)?),
            },
            signature: decoded(signature)?,
            text,
        })
    }

    pub(in crate::signature) fn alg(&self) -> &str {
        &self.header.alg
    }

    pub(in crate::signature) fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// The header, which carries what is claimed about detached content.
    pub(in crate::signature) fn header(&self) -> &Claims {
        &self.header.members
    }

    /// The decoded content; `None` when it is detached.
    pub(in crate::signature) fn content(&self) -> Option<&[u8]> {
        self.content.as_deref()
    }

    pub(in crate::signature) fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// What the signature is over (RFC 7515 section 5.1, RFC 7797 section 3).
    pub(in crate::signature) fn signed_bytes<'s>(&'s self, body: &[u8]) -> Cow<'s, [u8]> {
        if self.content.is_some() {
            return Cow::Borrowed(self.text.get(..self.content_end).unwrap_or_default());
        }
        let mut signed = self.text.get(..self.content_at).unwrap_or_default().to_vec();
        match self.header.is_plain {
            true => signed.extend_from_slice(body),
            false => signed.extend_from_slice(to_jose(body).as_bytes()),
        }
        Cow::Owned(signed)
    }

    /// Whether the signature is the MAC of `signed`; what stands for that MAC is added to `digests` in any case.
    pub(in crate::signature) fn is_maced(&self, mac: &Mac, signed: &[u8], digests: &mut Vec<[u8; 32]>) -> bool {
        let mut mac = mac.clone();
        mac.update(signed);
        let right = mac.finish();
        digests.push(right.digest());
        // A signature longer than any MAC is compared as well, as one of no bytes.
        let presented = Tag::from_slice(&self.signature).or_else(|| Tag::from_slice(&[]));
        presented.is_some_and(|presented| bool::from(presented.ct_eq(&right)))
    }
}

impl Header {
    fn parse(json: &[u8], detached: bool) -> Result<Header, Failure> {
        if json.len() > HEADER_BYTES_MAX {
            return Err(Failure::Malformed);
        }
        let members = StrictObject::parse(json)?;
        let alg = members.text("alg").ok_or(Failure::Malformed)?.to_owned();
        let kid = match members.member("kid") {
            None => None,
            Some(Strict::Text(kid)) if is_name(kid) => Some(kid.clone()),
            Some(_) => return Err(Failure::Malformed),
        };
        let is_plain = match members.member("b64") {
            None | Some(Strict::Flag(true)) => false,
            Some(Strict::Flag(false)) if detached => true,
            Some(_) => return Err(Failure::Malformed),
        };
        let known = |listed: &Strict| matches!(listed, Strict::Text(name) if name == "b64");
        match members.member("crit") {
            None if !is_plain => {}
            Some(Strict::List(listed)) if is_plain && listed.len() == 1 && listed.iter().all(known) => {}
            _ => return Err(Failure::Malformed),
        }
        Ok(Header {
            members: Claims::of(members),
            alg,
            kid,
            is_plain,
        })
    }
}

fn is_name(kid: &str) -> bool {
    !kid.is_empty() && kid.len() <= KID_BYTES_MAX && kid.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}
