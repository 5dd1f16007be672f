//! The native verifiers: a closed list, each with what a scheme must know about it.
//!
//! A scheme file names one by `native: NAME` and says nothing else about its signature: which key, which headers, how
//! much is proven and how old a request may be follow from the name. Everything here is a table; what the rows do, and
//! the facts about them, are in the files beside this one.

use std::time::Duration;

use http::HeaderName;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use super::{
    ActiveKey, Found, Message, PublicUrl, Settings, adyen, alipay, apple_app_store, atlassian_connect, aws_sns,
    braintree, bridge, contentful, dropbox_sign, ebay, exact_online, hubspot, keygen, neon_auth, paypal, plivo,
    treezor, twilio,
};
use crate::clock::UnixMillis;
use crate::signature::file::KeyForm;
use crate::signature::key::KeyError;
use crate::signature::proof::{Failure, Strength};
use crate::signature::pubkey::{PrivateKey, PublicKeyForm, SignatureAlgorithm};
use crate::signature::wanted::Wanted;

/// A scheme that no template can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Native {
    /// Adyen's standard notifications: eight fields of every item.
    Adyen,
    /// Antom and Alipay+: method, path, client, time and body.
    AlipayAntom,
    /// Apple's App Store: a token in the body, whose certificates lead to Apple's root.
    AppleAppStore,
    /// Atlassian Connect: a token with a digest of method, path and query.
    AtlassianConnect,
    /// Amazon SNS: some members of a JSON message, under a published certificate.
    AwsSns,
    /// Braintree: an encoded notification in a form.
    Braintree,
    /// Bridge: the digest of time and body, hashed once more.
    BridgeXyz,
    /// Contentful: a request in canonical form, with a list of headers.
    Contentful,
    /// Dropbox Sign: time and type of an event inside a form in parts.
    DropboxSign,
    /// eBay: the body, with a signature wrapped in JSON.
    Ebay,
    /// Exact Online: the text of one member of the body.
    ExactOnline,
    /// HubSpot's third version: method, URL with some escapes decoded, body and time.
    HubspotV3,
    /// Keygen: an HTTP signature.
    Keygen,
    /// Neon Auth: a detached token over time and body, under a published key.
    NeonAuth,
    /// PayPal: ids, time and a checksum of the body, under a published certificate.
    Paypal,
    /// Plivo's third version: URL, sorted query and form.
    PlivoV3,
    /// Treezor: one member of the body as PHP writes it.
    Treezor,
    /// Twilio: URL and sorted form, or URL with the body's digest.
    Twilio,
}

/// How an operator writes the key of a native verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NativeKey {
    /// A shared secret.
    Shared(KeyForm),
    /// A public key, and the algorithm that it must be for.
    Public(PublicKeyForm, SignatureAlgorithm),
    /// None: the provider publishes its key.
    Published,
    /// None: what the request brings leads to a root that is in this program.
    Pinned,
}

/// What is known of a native verifier before any request.
pub(super) struct Facts {
    pub(super) key: NativeKey,
    /// What any request proves at least.
    pub(super) strength_min: Strength,
    /// How far a signed time may be from ours; `None` when no time is signed, or one that retries keep.
    pub(super) tolerance: Option<Duration>,
    pub(super) uses_public_url: bool,
    /// The settings that a route must have.
    pub(super) settings: &'static [&'static str],
    /// The headers that decide about a verdict.
    pub(super) headers: fn() -> Vec<HeaderName>,
}

impl Native {
    /// Every native verifier, by name.
    pub const ALL: [Native; 18] = [
        Native::Adyen,
        Native::AlipayAntom,
        Native::AppleAppStore,
        Native::AtlassianConnect,
        Native::AwsSns,
        Native::Braintree,
        Native::BridgeXyz,
        Native::Contentful,
        Native::DropboxSign,
        Native::Ebay,
        Native::ExactOnline,
        Native::HubspotV3,
        Native::Keygen,
        Native::NeonAuth,
        Native::Paypal,
        Native::PlivoV3,
        Native::Treezor,
        Native::Twilio,
    ];

    fn facts(self) -> &'static Facts {
        match self {
            Native::Adyen => &adyen::FACTS,
            Native::AlipayAntom => &alipay::FACTS,
            Native::AppleAppStore => &apple_app_store::FACTS,
            Native::AtlassianConnect => &atlassian_connect::FACTS,
            Native::AwsSns => &aws_sns::FACTS,
            Native::Braintree => &braintree::FACTS,
            Native::BridgeXyz => &bridge::FACTS,
            Native::Contentful => &contentful::FACTS,
            Native::DropboxSign => &dropbox_sign::FACTS,
            Native::Ebay => &ebay::FACTS,
            Native::ExactOnline => &exact_online::FACTS,
            Native::HubspotV3 => &hubspot::FACTS,
            Native::Keygen => &keygen::FACTS,
            Native::NeonAuth => &neon_auth::FACTS,
            Native::Paypal => &paypal::FACTS,
            Native::PlivoV3 => &plivo::FACTS,
            Native::Treezor => &treezor::FACTS,
            Native::Twilio => &twilio::FACTS,
        }
    }

    /// What its key is.
    pub(crate) fn key(self) -> NativeKey {
        self.facts().key
    }

    /// What any request proves at least; some prove more, see [`Found::strength`].
    pub fn strength_min(self) -> Strength {
        self.facts().strength_min
    }

    /// How far a signed time may be from ours, unless the route says otherwise; `None` when no time is signed, or one
    /// that the provider's retries keep.
    pub fn tolerance(self) -> Option<Duration> {
        self.facts().tolerance
    }

    /// Whether the route must say its public URL. The verifier itself compares the request's query with it.
    pub fn uses_public_url(self) -> bool {
        self.facts().uses_public_url
    }

    /// Whether the provider has a challenge that is answered under the key.
    pub fn answers_challenges(self) -> bool {
        self == Native::Braintree
    }

    /// The settings that the route must have.
    pub fn settings(self) -> &'static [&'static str] {
        self.facts().settings
    }

    /// The headers that decide about a verdict: what repeats or imitates them is refused before.
    pub(crate) fn security_headers(self) -> Vec<HeaderName> {
        (self.facts().headers)()
    }

    /// Checks the route's settings once.
    ///
    /// # Errors
    /// The name of the setting and what is wrong with it.
    pub(in crate::signature) fn check(self, settings: &Settings) -> Result<(), (&'static str, &'static str)> {
        match self {
            Native::AppleAppStore => apple_app_store::check(settings),
            Native::NeonAuth => neon_auth::check(settings).map_err(|why| (neon_auth::AUTH_URL, why)),
            Native::AwsSns => aws_sns::check(settings).map_err(|why| (aws_sns::TOPICS, why)),
            Native::Paypal => paypal::check(settings).map_err(|why| (paypal::WEBHOOK_ID, why)),
            _ => Ok(()),
        }
    }

    /// Whether the verifier finds a signed event id.
    pub fn signs_id(self) -> bool {
        matches!(self, Native::AppleAppStore | Native::AwsSns | Native::Paypal)
    }

    /// Whether some of its messages ask for consent, which a route may give.
    pub(in crate::signature) fn asks_consent(self) -> bool {
        matches!(self, Native::AwsSns)
    }

    /// Judges everything that can be judged without the published key, and says which key that is.
    ///
    /// # Errors
    /// Why no key could make this request a proof.
    pub(in crate::signature) fn wanted(self, message: &Message<'_>) -> Result<Wanted, Failure> {
        match self {
            Native::AwsSns => aws_sns::read(message),
            Native::NeonAuth => neon_auth::read(message),
            Native::Paypal => paypal::read(message),
            _ => Err(Failure::UnknownKey),
        }
    }

    /// Judges a request, except for its age.
    ///
    /// # Errors
    /// What keeps the request from being judged; a signature that is wrong is [`Found::matched`] with nothing in it.
    pub(in crate::signature) fn verify(self, message: &Message<'_>, keys: &[ActiveKey<'_>]) -> Result<Found, Failure> {
        match self {
            Native::Adyen => adyen::verify(message, keys),
            Native::AlipayAntom => alipay::verify(message, keys),
            Native::AppleAppStore => apple_app_store::verify(message),
            Native::AtlassianConnect => atlassian_connect::verify(message, keys),
            Native::Braintree => braintree::verify(message, keys),
            Native::BridgeXyz => bridge::verify(message, keys),
            Native::Contentful => contentful::verify(message, keys),
            Native::DropboxSign => dropbox_sign::verify(message, keys),
            Native::Ebay => ebay::verify(message, keys),
            Native::ExactOnline => exact_online::verify(message, keys),
            Native::HubspotV3 => hubspot::verify(message, keys),
            Native::Keygen => keygen::verify(message, keys),
            Native::PlivoV3 => plivo::verify(message, keys),
            Native::Treezor => treezor::verify(message, keys),
            Native::Twilio => twilio::verify(message, keys),
            Native::AwsSns | Native::NeonAuth | Native::Paypal => Err(Failure::UnknownKey),
        }
    }

    /// The text that answers a challenge of the provider's which comes unsigned and asks for proof of the key; `None`
    /// when it is no such challenge, or the provider has none. Only Braintree has: `GET ?bt_challenge=...`.
    pub(in crate::signature) fn answer(self, settings: &Settings, key: &[u8], challenge: &str) -> Option<String> {
        match self {
            Native::Braintree => braintree::answer(settings, key, challenge),
            _ => None,
        }
    }

    /// Signs a POST as the provider would.
    ///
    /// # Errors
    /// [`KeyError::Unsignable`] when the body, time or id cannot occur in this scheme, when the key is of another kind,
    /// and when only the provider can have one.
    pub(in crate::signature) fn sign(self, request: &Unsigned<'_>, key: SigningKey<'_>) -> Result<Signed, KeyError> {
        match (self, key) {
            (Native::Adyen, SigningKey::Shared(key)) => adyen::sign(request, key),
            (Native::AlipayAntom, SigningKey::Private(key)) => alipay::sign(request, key),
            (Native::AtlassianConnect, SigningKey::Shared(key)) => atlassian_connect::sign(request, key),
            (Native::Braintree, SigningKey::Shared(key)) => braintree::sign(request, key),
            (Native::BridgeXyz, SigningKey::Private(key)) => bridge::sign(request, key),
            (Native::Contentful, SigningKey::Shared(key)) => contentful::sign(request, key),
            (Native::DropboxSign, SigningKey::Shared(key)) => dropbox_sign::sign(request, key),
            (Native::Ebay, SigningKey::Private(key)) => ebay::sign(request, key),
            (Native::ExactOnline, SigningKey::Shared(key)) => exact_online::sign(request, key),
            (Native::HubspotV3, SigningKey::Shared(key)) => hubspot::sign(request, key),
            (Native::Keygen, SigningKey::Private(key)) => keygen::sign(request, key),
            (Native::PlivoV3, SigningKey::Shared(key)) => plivo::sign(request, key),
            (Native::Treezor, SigningKey::Shared(key)) => treezor::sign(request, key),
            (Native::Twilio, SigningKey::Shared(key)) => twilio::sign(request, key),
            (Native::AppleAppStore | Native::AwsSns | Native::NeonAuth | Native::Paypal, _) => {
                Err(KeyError::Unsignable("only the provider has the key of this scheme"))
            }
            _ => Err(KeyError::Unsignable("the key is not of the scheme's kind")),
        }
    }
}

/// What signs in a provider's place.
#[derive(Clone, Copy)]
pub(in crate::signature) enum SigningKey<'a> {
    /// A shared secret, decoded as [`Native::key`] says.
    Shared(&'a [u8]),
    /// The private key to a public one.
    Private(&'a PrivateKey),
}

/// A POST that is to be signed.
#[derive(Clone, Copy)]
pub(in crate::signature) struct Unsigned<'a> {
    /// The URL that it goes to, as the provider knows it.
    pub(in crate::signature) public_url: Option<&'a PublicUrl>,
    /// The route's settings.
    pub(in crate::signature) settings: &'a Settings,
    /// The time that is signed, where one is.
    pub(in crate::signature) now: UnixMillis,
    /// The id that is signed, where one is.
    pub(in crate::signature) id: &'a str,
    /// The event, before the provider wraps it.
    pub(in crate::signature) body: &'a [u8],
}

impl<'a> Unsigned<'a> {
    pub(super) fn public_url(&self) -> Result<&'a PublicUrl, KeyError> {
        self.public_url.ok_or(KeyError::Unsignable(
            "the scheme signs the public URL, and there is none",
        ))
    }

    pub(super) fn setting(&self, name: &str) -> Result<&'a str, KeyError> {
        let missing = KeyError::Unsignable("a setting that the scheme needs is not there");
        self.settings.find(name).ok_or(missing)
    }
}

/// What signing makes of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::signature) struct Signed {
    /// Headers to add.
    pub(in crate::signature) headers: Vec<(HeaderName, String)>,
    /// The query to send in place of the URL's own.
    pub(in crate::signature) query: Option<String>,
    /// The body to send in place of the event.
    pub(in crate::signature) body: Option<Vec<u8>>,
}

impl Signed {
    pub(super) fn json_body(body: Vec<u8>) -> Signed {
        let mut signed = Signed::default();
        signed.content_type("application/json");
        signed.body = Some(body);
        signed
    }

    pub(super) fn content_type(&mut self, value: &str) {
        self.headers.push((CONTENT_TYPE, value.to_owned()));
    }
}
