//! Apple's App Store Server Notifications, second version: a token in the body, with its own chain of certificates.
//!
//! The body is `{"signedPayload": TOKEN}`. The token's header brings the certificates (`x5c`), which would prove nothing
//! if they did not lead to Apple's root, which is in this program. Both of them bear marks that say what they were issued
//! for; without asking for these marks, anybody with another certificate from Apple could sign. No secret is involved.
//!
//! Any app's notifications are signed by the same keys, so that the route says its bundle (setting `bundle_id`), and its
//! environment (`Production` or `Sandbox`): purchases in the sandbox cost nothing.
//!
//! The chain is judged at the signed date, and the signed date by its age. Revocation is not asked for.
//!
//! <https://developer.apple.com/documentation/appstoreservernotifications/responsebodyv2>

use std::borrow::Cow;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::super::encoding::key_from_base64;
use super::super::jwt::{Claims, Token, only_member};
use super::super::proof::{Failure, Strength};
use super::super::pubkey::{EcdsaForm, PublicKey, SignatureAlgorithm};
use super::super::x509::Certificate;
use super::kind::{Facts, NativeKey};
use super::{Found, Message, Settings};
use crate::clock::UnixMillis;

/// Apple repeats a notification for three days.
pub(in super::super) const TOLERANCE: Duration = Duration::from_secs(96 * 60 * 60);

/// What is known of it before any request.
pub(super) const FACTS: Facts = Facts {
    key: NativeKey::Pinned,
    strength_min: Strength::Verified,
    tolerance: Some(TOLERANCE),
    uses_public_url: false,
    settings: &[BUNDLE, ENVIRONMENT],
    headers: Vec::new,
};

/// The setting with the app's bundle.
pub(in super::super) const BUNDLE: &str = "bundle_id";

/// The setting with the environment, as Apple writes it.
pub(in super::super) const ENVIRONMENT: &str = "environment";

/// SHA-256: 63343ABFB89A6A03EBB57E9B3F5FA7BE7C4F5C756F3017B3A8C488C3653E9179, as on apple.com/certificateauthority.
const ROOT: &[u8] = include_bytes!("apple_root_ca_g3.pem");

/// Marks of a certificate for signing receipts and notifications, and of the authority that issues such.
const SIGNS_NOTIFICATIONS: &str = "1.2.840.113635.100.6.11.1";
const ISSUES_TO_DEVELOPERS: &str = "1.2.840.113635.100.6.2.1";

/// The members of a notification, one of which says what app it is about.
const SUBJECTS: [&str; 4] = ["data", "summary", "externalPurchaseToken", "appData"];

/// Checks the settings once, where a route is built.
///
/// # Errors
/// The name of the setting and what is wrong with it.
pub(in super::super) fn check(settings: &Settings) -> Result<(), (&'static str, &'static str)> {
    match settings.find(ENVIRONMENT) {
        Some("Production" | "Sandbox") => Ok(()),
        _ => Err((ENVIRONMENT, "is neither Production nor Sandbox")),
    }
}

/// Judges a request, except for its age. There are no keys to choose from: [`Found::matched`] is `Some(0)` or nothing.
///
/// # Errors
/// What keeps the request from being judged; [`Failure::UnknownKey`] for certificates that do not lead to Apple.
pub(in super::super) fn verify(message: &Message<'_>) -> Result<Found, Failure> {
    let root = Certificate::parse_pem(ROOT).map_err(|_| Failure::UnknownKey)?;
    verify_under(root.first().ok_or(Failure::UnknownKey)?, message)
}

fn verify_under(root: &Certificate, message: &Message<'_>) -> Result<Found, Failure> {
    let text = only_member(message.body, "signedPayload")?;
    let token = Token::parse(Cow::Owned(text.into_bytes()), false)?;
    if token.alg() != "ES256" {
        return Err(Failure::Malformed);
    }
    let claims = Claims::parse(token.content().unwrap_or_default())?;
    let signed_at = claims.millis("signedDate").ok_or(Failure::Malformed)?;
    let key = certified_key(root, token.header(), signed_at)?;
    let signed = token.signed_bytes(b"");
    let algorithm = SignatureAlgorithm::EcdsaP256Sha256;
    let right = key.verify(algorithm, EcdsaForm::Raw, &signed, token.signature());
    if right && !is_ours(&claims, message.settings) {
        return Err(Failure::Mismatch);
    }
    Ok(Found {
        matched: right.then_some(0),
        digests: vec![Sha256::digest(&signed).into()],
        signed_id: Some(claims.id("notificationUUID")?),
        timestamp: Some(signed_at),
        strength: Strength::Verified,
    })
}

/// The key of the first certificate in the header, if the chain leads to `root` and is for notifications.
fn certified_key(root: &Certificate, header: &Claims, at: UnixMillis) -> Result<PublicKey, Failure> {
    let listed = header.texts("x5c").ok_or(Failure::Missing)?;
    // The third is the root, in the sender's copy, of which nobody takes notice.
    let [own, issuer, _] = listed.as_slice() else {
        return Err(Failure::Malformed);
    };
    let read = |text: &str| {
        let der = key_from_base64(text.as_bytes()).ok_or(Failure::Malformed)?;
        Certificate::parse_der(&der).map_err(|_| Failure::Malformed)
    };
    let (own, issuer) = (read(own)?, read(issuer)?);
    if !own.has_extension(SIGNS_NOTIFICATIONS) || !issuer.has_extension(ISSUES_TO_DEVELOPERS) {
        return Err(Failure::UnknownKey);
    }
    let checked = own.check_chain(std::slice::from_ref(&issuer), root, at);
    checked.map_err(|_| Failure::UnknownKey)?;
    own.key().map_err(|_| Failure::UnknownKey)
}

fn is_ours(claims: &Claims, settings: &Settings) -> bool {
    let is = |inner: &str, setting: &str| {
        let wanted = settings.find(setting);
        let mut said = SUBJECTS.iter().filter_map(|subject| claims.inner_text(subject, inner));
        said.next().is_some_and(|said| Some(said) == wanted) && said.all(|said| Some(said) == wanted)
    };
    is("bundleId", BUNDLE) && is("environment", ENVIRONMENT)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use http::HeaderMap;
    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair};

    use super::*;
    use crate::secret::Secret;
    use crate::signature::encoding::to_jose;
    use crate::signature::pubkey::PrivateKey;

    const NOW: u64 = 1_700_000_000_000;
    const OWN_MARK: &[u64] = &[1, 2, 840, 113635, 100, 6, 11, 1];
    const ISSUER_MARK: &[u64] = &[1, 2, 840, 113635, 100, 6, 2, 1];
    const OTHER_MARK: &[u64] = &[1, 2, 840, 113635, 100, 6, 2, 2];

    /// A chain like Apple's, under a root of its own.
    struct Chain {
        root: Certificate,
        x5c: Vec<String>,
        key: PrivateKey,
    }

    fn chain(own_mark: &[u64], issuer_mark: &[u64]) -> Chain {
        let params = |name: &str, is_ca: bool, mark: Option<&[u64]>| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = if is_ca {
                IsCa::Ca(BasicConstraints::Unconstrained)
            } else {
                IsCa::NoCa
            };
            let null = |mark| CustomExtension::from_oid_content(mark, vec![5, 0]);
            params.custom_extensions = mark.map(null).into_iter().collect();
            params
        };
        let keys: Vec<KeyPair> = (0..3).map(|_| KeyPair::generate().unwrap()).collect();
        let root = params("root", true, None);
        let root_certificate = root.self_signed(&keys[0]).unwrap();
        let root = Issuer::new(root, &keys[0]);
        let issuer = params("issuer", true, Some(issuer_mark));
        let issuer_certificate = issuer.signed_by(&keys[1], &root).unwrap();
        let issuer = Issuer::new(issuer, &keys[1]);
        let own = params("own", false, Some(own_mark))
            .signed_by(&keys[2], &issuer)
            .unwrap();
        let ders = [own.der().as_ref(), issuer_certificate.der(), root_certificate.der()];
        Chain {
            root: Certificate::parse_der(root_certificate.der()).unwrap(),
            x5c: ders.map(|der| STANDARD.encode(der)).to_vec(),
            key: PrivateKey::parse(&Secret::new(keys[2].serialize_pem()).unwrap()).unwrap(),
        }
    }

    fn claims(bundle: &str, environment: &str) -> String {
        format!(
            r#"{{"notificationType":"TEST","notificationUUID":"002e14d5","signedDate":{NOW},"data":{{"bundleId":"{bundle}","environment":"{environment}"}}}}"#
        )
    }

    fn judged(root: &Certificate, chain: &Chain, x5c: &[String], claims: &str) -> Result<Option<usize>, Failure> {
        let header = serde_json::json!({ "alg": "ES256", "x5c": x5c }).to_string();
        let signed = format!("{}.{}", to_jose(header.as_bytes()), to_jose(claims.as_bytes()));
        let algorithm = SignatureAlgorithm::EcdsaP256Sha256;
        let signature = chain.key.sign(algorithm, EcdsaForm::Raw, signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", to_jose(&signature));
        let mut settings = Settings::default();
        settings.insert(BUNDLE, Secret::new("com.example").unwrap()).unwrap();
        settings
            .insert(ENVIRONMENT, Secret::new("Production").unwrap())
            .unwrap();
        assert_eq!(check(&settings), Ok(()));
        let body = serde_json::json!({ "signedPayload": token }).to_string();
        let headers = HeaderMap::new();
        let message = Message {
            method: "POST",
            target: "/",
            headers: &headers,
            body: body.as_bytes(),
            public_url: None,
            settings: &settings,
        };
        // Under Apple's own root, no chain of ours counts.
        assert_ne!(verify(&message).ok().and_then(|found| found.matched), Some(0));
        let found = verify_under(root, &message)?;
        assert_eq!(found.timestamp, Some(UnixMillis(NOW)));
        assert_eq!(found.signed_id.as_deref(), Some("002e14d5"));
        Ok(found.matched)
    }

    #[test]
    fn a_notification_is_apples_and_about_this_app() {
        // Every developer has a certificate from Apple, and every sandbox sells for nothing.
        let (good, stranger) = (chain(OWN_MARK, ISSUER_MARK), chain(OWN_MARK, ISSUER_MARK));
        let ours = claims("com.example", "Production");
        assert_eq!(judged(&good.root, &good, &good.x5c, &ours), Ok(Some(0)));
        assert_eq!(
            judged(&stranger.root, &good, &good.x5c, &ours),
            Err(Failure::UnknownKey)
        );
        // Somebody else's key under good certificates.
        assert_eq!(judged(&good.root, &stranger, &good.x5c, &ours), Ok(None));
        for wrong in [claims("com.other", "Production"), claims("com.example", "Sandbox")] {
            assert_eq!(judged(&good.root, &good, &good.x5c, &wrong), Err(Failure::Mismatch));
        }
        let twofold = ours.replace(
            r#""data""#,
            r#""summary":{"bundleId":"com.other","environment":"Production"},"data""#,
        );
        assert_eq!(judged(&good.root, &good, &good.x5c, &twofold), Err(Failure::Mismatch));
        let nobodys = ours.replace("data", "other");
        assert_eq!(judged(&good.root, &good, &good.x5c, &nobodys), Err(Failure::Mismatch));
        for (own, issuer) in [(OTHER_MARK, ISSUER_MARK), (OWN_MARK, OTHER_MARK)] {
            let other = chain(own, issuer);
            assert_eq!(judged(&other.root, &other, &other.x5c, &ours), Err(Failure::UnknownKey));
        }
        for (x5c, failure) in [
            (&good.x5c[..2], Failure::Malformed),
            (&good.x5c[1..], Failure::Malformed),
            (&[], Failure::Malformed),
        ] {
            assert_eq!(judged(&good.root, &good, x5c, &ours), Err(failure));
        }
        let ancient = ours.replace(&NOW.to_string(), "0");
        assert_eq!(judged(&good.root, &good, &good.x5c, &ancient), Err(Failure::UnknownKey));
    }
}
