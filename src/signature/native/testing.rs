//! What the tests of native verifiers share: requests that are quickly written, and a verdict that is quickly read.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{ActiveKey, Found, Message, Native, NativeKey, PublicUrl, Settings, Signed, SigningKey, Unsigned};
use crate::clock::UnixMillis;
use crate::secret::Secret;
use crate::signature::key::decode;
use crate::signature::proof::{Failure, Strength};
use crate::signature::pubkey::{PrivateKey, PublicKey};

/// A request that owns its parts.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) public_url: PublicUrl,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) settings: Settings,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// A POST to a URL that is also the public one.
    pub(super) fn post(url: &str, body: impl AsRef<[u8]>) -> Request {
        let public_url = PublicUrl::parse(url).unwrap();
        Request {
            method: "POST",
            target: public_url.path_and_query().to_owned(),
            public_url,
            headers: HeaderMap::new(),
            settings: Settings::default(),
            body: body.as_ref().to_vec(),
        }
    }

    /// A form, POSTed.
    pub(super) fn form(url: &str, body: impl AsRef<[u8]>) -> Request {
        Request::post(url, body).header("content-type", "application/x-www-form-urlencoded")
    }

    /// With one header more.
    pub(super) fn header(mut self, name: &str, value: &str) -> Request {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// With another value of a header.
    pub(super) fn replaced(mut self, name: &str, value: &str) -> Request {
        self.headers.remove(name);
        self.header(name, value)
    }

    /// With one header less.
    pub(super) fn without(mut self, name: &str) -> Request {
        self.headers.remove(name).unwrap();
        self
    }

    /// With one setting more.
    pub(super) fn setting(mut self, name: &str, value: &str) -> Request {
        self.settings.insert(name, Secret::new(value).unwrap()).unwrap();
        self
    }

    /// With another body.
    pub(super) fn body(mut self, body: impl AsRef<[u8]>) -> Request {
        self.body = body.as_ref().to_vec();
        self
    }

    /// With another path and query than the public URL's.
    pub(super) fn target(mut self, target: &str) -> Request {
        self.target = target.to_owned();
        self
    }

    pub(super) fn message(&self) -> Message<'_> {
        Message {
            method: self.method,
            target: &self.target,
            headers: &self.headers,
            body: &self.body,
            public_url: Some(&self.public_url),
            settings: &self.settings,
        }
    }

    /// As the provider would send it.
    pub(super) fn signed(&self, native: Native, key: SigningKey<'_>, now: UnixMillis) -> Request {
        let unsigned = Unsigned {
            public_url: Some(&self.public_url),
            settings: &self.settings,
            now,
            id: "evt1",
            body: &self.body,
        };
        let Signed { headers, query, body } = native.sign(&unsigned, key).unwrap();
        let mut request = self.clone();
        for (name, value) in headers {
            request.headers.insert(name, HeaderValue::from_str(&value).unwrap());
        }
        if let Some(query) = query {
            let path = self.target.split('?').next().unwrap();
            request.target = format!("{path}?{query}");
        }
        if let Some(body) = body {
            request.body = body;
        }
        request
    }
}

/// The verdict: how much is proven, or why nothing is. The secret is as the operator writes it.
pub(super) fn judged(native: Native, request: &Request, secret: &str) -> Result<Strength, Failure> {
    let found = found(native, request, secret)?;
    assert!(found.strength == native.strength_min() || found.strength == Strength::Verified);
    found.matched.map(|_| found.strength).ok_or(Failure::Mismatch)
}

/// What a repeat of an accepted request is recognised by.
pub(super) fn digests(native: Native, request: &Request, secret: &str) -> Vec<[u8; 32]> {
    let found = found(native, request, secret).unwrap();
    assert_eq!(found.matched, Some(0));
    found.digests
}

/// All that is found under one key.
pub(super) fn found(native: Native, request: &Request, secret: &str) -> Result<Found, Failure> {
    let secret = Secret::new(secret).unwrap();
    match native.key() {
        NativeKey::Shared(form) => {
            let key = decode(form, "test", &secret).unwrap();
            native.verify(&request.message(), &[ActiveKey::new(&key)])
        }
        NativeKey::Public(form, algorithm) => {
            let key = PublicKey::parse(form, secret.expose()).unwrap();
            key.check(algorithm).unwrap();
            native.verify(&request.message(), &[ActiveKey::public(&key)])
        }
        NativeKey::Published | NativeKey::Pinned => native.verify(&request.message(), &[]),
    }
}

/// Made for these tests, and good for nothing else.
pub(super) const RSA_PRIVATE: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC5FVeZpfOkjpbAR6KxLpf93oxS648po/5BKeZ7+Tb76gag\
    n0eE25ol+5zaejyRzMJ6BMwhcxaTXoVvBhY1LutgaLKU5pnL324YiHFrXKJb4WmLrO5rAG3GMz7N2MVHAVqB6MBAbLg9g+2p\
    xX+XFbvC9b8Gy3zUGM7McEsiZ8qiNRB8/Z1LYPGwz0Vmp/dy37WRJq6VbJ+xpBVUxz5QjYhdspzyKS+hSRoDjkWzG1cRornm\
    96B2TqxkuEreGa6l92Cscddn4c6a2a0FVbUokV0jpfdMLUUZsYk+kjQZej3RJqon0kuTCBnLWWGOqXmzq7F/hbifkTIG7QCQ\
    Rp/vy3YvAgMBAAECggEANsjpeDKWLwSB/QJ3VukK1nu0n6rYYqQHU7SaY+H9841vTsY2/k2ekFWtNUJvgVzRyBp5bgFKEm8t\
    IhL0KePsikoTal3j8mP9i8d/gx8VdAsCGfUjUYr782oh0f6zTnRJHSEPH0LPOm49wD4UqV0miewCEnnTRljdhchLhTCh22dG\
    jBAnEyl4GoTi/FiISqEEfmsWMyYCMmCG13SwnhZF0IU2B+ijuvNpcqlPs1jg3a3UDbNCFVLH5p+3xUL7IARVpVXMIlQ6nVEs\
    +mNTbH+Pe0VpVK5vsIBNUYTIrNTVIbvbAmSXnvxXMPlXrlZId1OeZV8w88w5lrkVVUs6yNI9yQKBgQDoFSpP2I6nx1UgFqsH\
    nKUlU+avPhkSFRVBqhThSLuXcxw7pUC3/jDxxXfJpbgb5h1pW5Jz8sxjMWnYiLY4Phtl1Iho2yU7cELtaexsU0LsqihBVCXg\
    oR5QBe2BH8n/wc9jacv1CARRSgCt7m/lb1O5+eml8Lgl6O4f3RKJpwDXKwKBgQDMKDwzPGsFrDtnFL3qNoUb8gj/zMXiMkbI\
    r/6m14JJt/3SE5zr+7vXjs0YACFxiE9N/ZgWzDXmvE4PB5x+MRMG8vIb5ealb7cW3lO16xS3xx1XdDLHIRhhEGR7bER3dRzp\
    TrDPnSJYF8RZvDO8VjyuGK1y1VA/KYHhE+aA4q0bDQKBgQDWnDPbUBtixO5P1QZk7JK+eN56MMdINFzKsvfJ99MY0qZJ9Z9q\
    RVGHUR5bRraAfgO2mKpONDiShXAmfw1Z5vy45pcZt4SveTk6h9fLuBbL+PFur9yy4uq//ytIW1gU/GjFumCTfs1XSkJklHe+\
    x3q6IILSI052J/aDWpA44EjjrwKBgAEL88MPfDz7NRLCOHcK8IPEKeel1R3jxBkjTdrtH+3g05xQHW3YTI4+XS7SUVmTqVRt\
    CGqVgXE9ZekN0O+UsNRISpV6CESw3e9wFF3KZsDKdIwOPHRo5wcYXmuDkpZKM2u+y4lE9PgepxMOs/UzO/xog/sivNaWD+Rn\
    hbcDcn/BAoGACbVtuU3l20LSdbqLnpGJp931I1icXmjFMwMcC+dS5jOtrD9KU8pq6gRl5uwLO0dDuWHYaF1erubmXGgXDjEq\
    zKomcDcgiRWHXSJWqJfrSdtioeW2ht6my4SMlG4PNtLM+xcJ85M9BCrNpdLA4Mkp/uyL9sxCyW8/T/w2xsJ7GWk=";
pub(super) const RSA_PUBLIC: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAuRVXmaXzpI6WwEeisS6X/d6MUuuPKaP+QSnme/k2++oGoJ9HhNua\
    Jfuc2no8kczCegTMIXMWk16FbwYWNS7rYGiylOaZy99uGIhxa1yiW+Fpi6zuawBtxjM+zdjFRwFagejAQGy4PYPtqcV/lxW7\
    wvW/Bst81BjOzHBLImfKojUQfP2dS2DxsM9FZqf3ct+1kSaulWyfsaQVVMc+UI2IXbKc8ikvoUkaA45FsxtXEaK55vegdk6s\
    ZLhK3hmupfdgrHHXZ+HOmtmtBVW1KJFdI6X3TC1FGbGJPpI0GXo90SaqJ9JLkwgZy1lhjql5s6uxf4W4n5EyBu0AkEaf78t2\
    LwIDAQAB";
pub(super) const P256_PRIVATE: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgg3k2FpzSn8zmW9RVJrGURGCOl1kmzn1OOn13Ma1plomhRANC\
    AASmV1R1y2CaZ7LDg+q+XLnSWNaDlq2AFwotIz22e16A38UAXeNsoq2UJ/b9emw8utMxcntA/zIYaiOPVSMWW3B8";
pub(super) const P256_PUBLIC: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEpldUdctgmmeyw4Pqvly50ljWg5atgBcKLSM9tntegN/FAF3jbKKtlCf2/Xps\
    PLrTMXJ7QP8yGGojj1UjFltwfA==";
pub(super) const ED25519_PRIVATE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
pub(super) const ED25519_PUBLIC: &str = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";

/// A key in base64 as PEM.
pub(super) fn pem(label: &str, base64: &str) -> String {
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The private key to one of the public ones above.
pub(super) fn private(base64: &str) -> PrivateKey {
    let text = match base64 {
        ED25519_PRIVATE => base64.to_owned(),
        _ => pem("PRIVATE KEY", base64),
    };
    PrivateKey::parse(&Secret::new(text).unwrap()).unwrap()
}
