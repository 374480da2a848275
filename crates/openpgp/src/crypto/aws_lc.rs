//! The first of two modules with `unsafe`: owned wrappers around the functions of AWS-LC's C interface that its safe crate
//! does not offer, namely odd hash algorithms, modular arithmetic of any size and ECDSA over any curve and digest.
//!
//! Rules that make it sound, referred to below as SAFETY 1 to 4:
//! 1. A wrapper holds a valid pointer that it alone owns, from its making until its drop frees it.
//! 2. Octets pass as the pointer and length of a slice that outlives the call, and are only read; output buffers are
//!    as long as the function asks for.
//! 3. `&self` reaches only functions that take a pointer to const, which AWS-LC documents as safe to call from several
//!    threads at once; the bindings' bare pointers hide that constness, so each call was compared with its header.
//!    Hence `Send` and `Sync`.
//! 4. Constants such as hash functions and named curves are static data of the library.
//!
//! Running out of memory aborts, as everywhere in Rust. Other failures are `None` or `false`.

use std::alloc::{Layout, handle_alloc_error};
use std::cmp::Ordering;
use std::ffi::c_int;
use std::ptr::{NonNull, null_mut};

use aws_lc_sys as sys;

use super::digest::DIGEST_OCTETS_MAX;

/// A hash algorithm of OpenPGP.
#[derive(Clone, Copy)]
pub(super) enum HashFunction {
    Md5,
    Sha1,
    Ripemd160,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha3_256,
    Sha3_512,
}

/// A hash being computed.
pub(super) struct HashState(Owned<sys::EVP_MD_CTX>);

impl HashState {
    pub(super) fn new(function: HashFunction) -> Self {
        // SAFETY: 4.
        let function = unsafe {
            match function {
                HashFunction::Md5 => sys::EVP_md5(),
                HashFunction::Sha1 => sys::EVP_sha1(),
                HashFunction::Ripemd160 => sys::EVP_ripemd160(),
                HashFunction::Sha224 => sys::EVP_sha224(),
                HashFunction::Sha256 => sys::EVP_sha256(),
                HashFunction::Sha384 => sys::EVP_sha384(),
                HashFunction::Sha512 => sys::EVP_sha512(),
                HashFunction::Sha3_256 => sys::EVP_sha3_256(),
                HashFunction::Sha3_512 => sys::EVP_sha3_512(),
            }
        };
        // SAFETY: 1 and 4; no engine is given.
        unsafe {
            let state = Owned::new(sys::EVP_MD_CTX_new());
            only_memory_may_fail(sys::EVP_DigestInit_ex(state.pointer(), function, null_mut()));
            Self(state)
        }
    }

    pub(super) fn update(&mut self, octets: &[u8]) {
        // SAFETY: 1 and 2.
        only_memory_may_fail(unsafe { sys::EVP_DigestUpdate(self.0.pointer(), octets.as_ptr().cast(), octets.len()) });
    }

    /// Writes the digest to the front of `digest` and returns its length.
    pub(super) fn finish(self, digest: &mut [u8; DIGEST_OCTETS_MAX]) -> usize {
        let mut length = 0;
        // SAFETY: 1, and 2 because no function of `HashFunction` makes more than 64 octets.
        only_memory_may_fail(unsafe {
            sys::EVP_DigestFinal_ex(self.0.pointer(), digest.as_mut_ptr(), &raw mut length)
        });
        length as usize
    }
}

impl Clone for HashState {
    fn clone(&self) -> Self {
        // SAFETY: 1 and 3; the copy shares nothing with the original.
        unsafe {
            let copy = Owned::new(sys::EVP_MD_CTX_new());
            only_memory_may_fail(sys::EVP_MD_CTX_copy_ex(copy.pointer(), self.0.pointer()));
            Self(copy)
        }
    }
}

/// A number, zero or positive.
pub(super) struct Integer(Owned<sys::BIGNUM>);

impl Integer {
    /// From big-endian octets.
    pub(super) fn from_octets(octets: &[u8]) -> Self {
        // SAFETY: 1 and 2; a null result asks for a new number.
        Self(unsafe { Owned::new(sys::BN_bin2bn(octets.as_ptr(), octets.len(), null_mut())) })
    }

    /// Significant bits.
    pub(super) fn bits(&self) -> u32 {
        // SAFETY: 1 and 3.
        unsafe { sys::BN_num_bits(self.0.pointer()) }
    }

    pub(super) fn is_odd(&self) -> bool {
        // SAFETY: 1 and 3.
        unsafe { sys::BN_is_odd(self.0.pointer()) == 1 }
    }

    /// Whether it lies in 1..modulus.
    pub(super) fn is_residue_of(&self, modulus: &Self) -> bool {
        self.bits() > 0 && self < modulus
    }

    pub(super) fn shifted_right(&self, bits: usize) -> Self {
        let Ok(bits) = c_int::try_from(bits) else {
            return Self::zero();
        };
        let result = Self::zero();
        // SAFETY: 1 and 3; the count is not negative.
        only_memory_may_fail(unsafe { sys::BN_rshift(result.0.pointer(), self.0.pointer(), bits) });
        result
    }

    fn zero() -> Self {
        // SAFETY: 1.
        Self(unsafe { Owned::new(sys::BN_new()) })
    }

    /// Runs an operation that writes its result to its first argument.
    fn made_by(operation: impl FnOnce(*mut sys::BIGNUM, *mut sys::BN_CTX) -> bool) -> Option<Self> {
        let result = Self::zero();
        // SAFETY: 1.
        let scratch = unsafe { Owned::new(sys::BN_CTX_new()) };
        operation(result.0.pointer(), scratch.pointer()).then_some(result)
    }
}

impl PartialEq for Integer {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Integer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        // SAFETY: 1 and 3.
        Some(unsafe { sys::BN_ucmp(self.0.pointer(), other.0.pointer()) }.cmp(&0))
    }
}

/// An odd number above one to compute modulo.
pub(super) struct Modulus {
    value: Integer,
    montgomery: Owned<sys::BN_MONT_CTX>,
}

impl Modulus {
    /// None if the value is even or one. Its size should be limited before: this takes quadratic time.
    pub(super) fn new(value: Integer) -> Option<Self> {
        if !value.is_odd() || value.bits() < 2 {
            return None;
        }
        // SAFETY: 1 and 3; a null scratch space asks for a new one.
        let montgomery = unsafe { Owned::if_made(sys::BN_MONT_CTX_new_for_modulus(value.0.pointer(), null_mut())) }?;
        Some(Self { value, montgomery })
    }

    pub(super) fn value(&self) -> &Integer {
        &self.value
    }

    /// None if the base is not below the modulus.
    pub(super) fn power(&self, base: &Integer, exponent: &Integer) -> Option<Integer> {
        // SAFETY: 1 and 3; the Montgomery constants were made for this modulus.
        Integer::made_by(|result, scratch| unsafe {
            let (base, exponent) = (base.0.pointer(), exponent.0.pointer());
            let (modulus, montgomery) = (self.value.0.pointer(), self.montgomery.pointer());
            sys::BN_mod_exp_mont(result, base, exponent, modulus, scratch, montgomery) == 1
        })
    }

    pub(super) fn product(&self, left: &Integer, right: &Integer) -> Option<Integer> {
        // SAFETY: 1 and 3.
        Integer::made_by(|result, scratch| unsafe {
            let (left, right, modulus) = (left.0.pointer(), right.0.pointer(), self.value.0.pointer());
            sys::BN_mod_mul(result, left, right, modulus, scratch) == 1
        })
    }

    pub(super) fn remainder(&self, value: &Integer) -> Option<Integer> {
        // SAFETY: 1 and 3.
        Integer::made_by(|result, scratch| unsafe {
            sys::BN_nnmod(result, value.0.pointer(), self.value.0.pointer(), scratch) == 1
        })
    }

    /// None if the value has no inverse.
    pub(super) fn inverse(&self, value: &Integer) -> Option<Integer> {
        // SAFETY: 1 and 3; the result is a given number, so the returned pointer is no new one to own.
        Integer::made_by(|result, scratch| unsafe {
            !sys::BN_mod_inverse(result, value.0.pointer(), self.value.0.pointer(), scratch).is_null()
        })
    }
}

/// A curve that AWS-LC knows, with fast arithmetic.
#[derive(Clone, Copy)]
pub(super) enum NamedCurve {
    P256,
    P384,
    P521,
    Secp256k1,
}

/// A curve y² = x³ + ax + b over a prime field, of prime order. All big-endian; the generator as `04`, x, y.
pub(super) struct Parameters {
    pub(super) prime: &'static [u8],
    pub(super) a: &'static [u8],
    pub(super) b: &'static [u8],
    pub(super) order: &'static [u8],
    pub(super) generator: &'static [u8],
}

/// A curve for ECDSA.
pub(super) enum Curve {
    Named(NamedCurve),
    Explicit(&'static Parameters),
}

impl Curve {
    fn group(&self) -> Option<Owned<sys::EC_GROUP>> {
        match self {
            Self::Named(name) => {
                let identifier = match name {
                    NamedCurve::P256 => sys::NID_X9_62_prime256v1,
                    NamedCurve::P384 => sys::NID_secp384r1,
                    NamedCurve::P521 => sys::NID_secp521r1,
                    NamedCurve::Secp256k1 => sys::NID_secp256k1,
                };
                // SAFETY: 4; freeing a named curve does nothing.
                unsafe { Owned::if_made(sys::EC_GROUP_new_by_curve_name(identifier)) }
            }
            Self::Explicit(parameters) => parameters.group(),
        }
    }
}

impl Parameters {
    fn group(&self) -> Option<Owned<sys::EC_GROUP>> {
        let integer = Integer::from_octets;
        let (prime, a, b, order) = (
            integer(self.prime),
            integer(self.a),
            integer(self.b),
            integer(self.order),
        );
        // SAFETY: 1, 3 and 4; the group copies what it is given.
        unsafe {
            let group = sys::EC_GROUP_new_curve_GFp(prime.0.pointer(), a.0.pointer(), b.0.pointer(), null_mut());
            let group = Owned::if_made(group)?;
            let generator = point_on(&group, self.generator)?;
            let cofactor = sys::BN_value_one();
            let complete =
                sys::EC_GROUP_set_generator(group.pointer(), generator.pointer(), order.0.pointer(), cofactor);
            (complete == 1).then_some(group)
        }
    }
}

/// A public key for ECDSA.
pub(super) struct CurveKey(Owned<sys::EC_KEY>);

impl CurveKey {
    /// None if the octets are no point of the curve, uncompressed or compressed, or the point at infinity.
    pub(super) fn new(curve: &Curve, point: &[u8]) -> Option<Self> {
        let group = curve.group()?;
        let point = point_on(&group, point)?;
        // SAFETY: 1 and 3; the key copies group and point.
        unsafe {
            let key = Owned::new(sys::EC_KEY_new());
            let complete = sys::EC_KEY_set_group(key.pointer(), group.pointer()) == 1
                && sys::EC_KEY_set_public_key(key.pointer(), point.pointer()) == 1;
            complete.then_some(Self(key))
        }
    }

    /// Checks a signature over a digest of any length, cut to the bits of the order.
    pub(super) fn verify(&self, digest: &[u8], r: Integer, s: Integer) -> bool {
        // SAFETY: 1, 2 and 3; setting r and s cannot fail, as neither is null, and moves both to the signature.
        unsafe {
            let signature = Owned::new(sys::ECDSA_SIG_new());
            sys::ECDSA_SIG_set0(signature.pointer(), r.0.give_up(), s.0.give_up());
            sys::ECDSA_do_verify(digest.as_ptr(), digest.len(), signature.pointer(), self.0.pointer()) == 1
        }
    }
}

fn point_on(group: &Owned<sys::EC_GROUP>, octets: &[u8]) -> Option<Owned<sys::EC_POINT>> {
    // SAFETY: 1, 2 and 3; a null scratch space asks for a new one.
    unsafe {
        let point = Owned::new(sys::EC_POINT_new(group.pointer()));
        let group = group.pointer();
        let on_curve = sys::EC_POINT_oct2point(group, point.pointer(), octets.as_ptr(), octets.len(), null_mut());
        (on_curve == 1).then_some(point)
    }
}

/// An object of the library with one owner.
struct Owned<T: Object>(NonNull<T>);

impl<T: Object> Owned<T> {
    /// Takes what an allocating function returned, which is null only when memory is gone.
    ///
    /// # Safety
    /// A pointer that is not null must be valid and without another owner.
    unsafe fn new(pointer: *mut T) -> Self {
        Self(NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(Layout::new::<usize>())))
    }

    /// Takes what a function returned that gives null for arguments it refuses.
    ///
    /// # Safety
    /// As for `new`.
    unsafe fn if_made(pointer: *mut T) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }

    fn pointer(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// Leaves the object to a new owner.
    fn give_up(self) -> *mut T {
        std::mem::ManuallyDrop::new(self).pointer()
    }
}

impl<T: Object> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: 1; nobody uses the pointer after this.
        unsafe { T::free(self.0.as_ptr()) }
    }
}

// SAFETY: 1 and 3; the library ties no object to a thread.
unsafe impl<T: Object> Send for Owned<T> {}
// SAFETY: 1 and 3.
unsafe impl<T: Object> Sync for Owned<T> {}

/// A type of the library and the function that frees it.
trait Object {
    /// # Safety
    /// The object must be owned by the caller and is gone afterwards.
    unsafe fn free(object: *mut Self);
}

macro_rules! objects {
    ($($object:ident freed by $free:ident),+ $(,)?) => {$(
        impl Object for sys::$object {
            unsafe fn free(object: *mut Self) {
                // SAFETY: the caller's.
                unsafe { sys::$free(object) }
            }
        }
    )+};
}

objects! {
    EVP_MD_CTX freed by EVP_MD_CTX_free,
    BIGNUM freed by BN_free,
    BN_CTX freed by BN_CTX_free,
    BN_MONT_CTX freed by BN_MONT_CTX_free,
    EC_GROUP freed by EC_GROUP_free,
    EC_POINT freed by EC_POINT_free,
    EC_KEY freed by EC_KEY_free,
    ECDSA_SIG freed by ECDSA_SIG_free,
}

/// For operations whose arguments are right by construction.
fn only_memory_may_fail(status: c_int) {
    if status != 1 {
        handle_alloc_error(Layout::new::<usize>());
    }
}
