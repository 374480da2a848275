//! Which signatures Hockeypuck believes in which place, given that the cryptography is right.

use super::key::can_sign;
use super::signature::Read;
use crate::cert::Component;
use crate::packet::key::{Fingerprint, Key, KeyId};
use crate::packet::signature::kind;
use crate::packet::tag;

/// Whose it claims to be, as Hockeypuck decides that: by the last issuer named and by nothing else.
pub(crate) fn is_own(read: &Read<'_>, key_id: &KeyId, fingerprint: &Fingerprint) -> bool {
    read.issuer.as_ref() == Some(key_id) || read.issuer_fingerprint == Some(fingerprint.as_bytes())
}

/// May a signature of this version and type stand on `component` of the certificate of `primary`?
pub(crate) fn may_stand(read: &Read<'_>, primary: &Key<'_>, component: &Component, own: bool) -> bool {
    let old = read.version == 3;
    match component.tag {
        tag::PUBLIC_KEY if old => read.kind == kind::KEY_REVOCATION && primary.version <= 4,
        tag::PUBLIC_KEY => primary.version > 3 && matches!(read.kind, kind::DIRECT_KEY | kind::KEY_REVOCATION),
        tag::USER_ID => {
            let certifies = (kind::CERTIFICATION..=kind::CERTIFICATION_LAST).contains(&read.kind);
            (old || primary.version > 3) && (certifies || read.kind == kind::CERTIFICATION_REVOCATION)
        }
        tag::PUBLIC_SUBKEY => {
            let binds = own && read.kind == kind::SUBKEY_BINDING;
            (binds || read.kind == kind::SUBKEY_REVOCATION)
                && component
                    .key()
                    .is_some_and(|subkey| may_join(read, primary, &subkey, own))
        }
        _ => false,
    }
}

/// Do the versions of key, subkey and signature go together?
fn may_join(read: &Read<'_>, primary: &Key<'_>, subkey: &Key<'_>, own: bool) -> bool {
    let old = read.version == 3;
    if primary.version <= 3 {
        return old && subkey.version <= 3;
    }
    let versions = subkey.version > 3 && (!old || subkey.version == 4);
    let owned = (primary.version == 6) == (subkey.version == 6) && (!old || !can_sign(subkey.algorithm));
    versions && (!own || owned)
}
