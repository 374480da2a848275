//! DSA with a subgroup order of any size, as old certificates have it (FIPS 186-4 §4.7).

use super::aws_lc::{Integer, Modulus};
use super::fields::Fields;
use super::{Check, KeyUnusable, MODULUS_BITS_MAX, affordable, power_work};

pub(super) struct Key {
    modulus: Modulus,
    order: Modulus,
    generator: Integer,
    public: Integer,
}

impl Key {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, KeyUnusable> {
        let mut integer = || fields.integer().map(Integer::from_octets);
        let (modulus, order, generator, public) = (integer()?, integer()?, integer()?, integer()?);
        let in_range = modulus.bits() <= MODULUS_BITS_MAX && order.bits() <= ORDER_BITS_MAX;
        if !in_range || !affordable(modulus.bits(), 2 * order.bits()) {
            return Err(KeyUnusable::Unsupported);
        }
        if order >= modulus || !generator.is_residue_of(&modulus) || !public.is_residue_of(&modulus) {
            return Err(KeyUnusable::Malformed);
        }
        Ok(Self {
            modulus: Modulus::new(modulus).ok_or(KeyUnusable::Malformed)?,
            order: Modulus::new(order).ok_or(KeyUnusable::Malformed)?,
            generator,
            public,
        })
    }

    pub(super) fn work(&self) -> u64 {
        power_work(self.modulus.value().bits(), 2 * self.order.value().bits())
    }

    pub(super) fn verify(&self, digest: &[u8], value: &mut Fields) -> Check {
        let (Ok(r), Ok(s)) = (value.integer(), value.integer()) else {
            return Check::Invalid;
        };
        self.holds(digest, &Integer::from_octets(r), &Integer::from_octets(s))
            .unwrap_or(false)
            .into()
    }

    /// Whether g^(z/s) · y^(r/s) mod p, taken mod q, is r. None if r or s is out of range.
    fn holds(&self, digest: &[u8], r: &Integer, s: &Integer) -> Option<bool> {
        let order = self.order.value();
        if !r.is_residue_of(order) || !s.is_residue_of(order) {
            return None;
        }
        let inverse = self.order.inverse(s)?;
        let digest_exponent = self.order.product(&self.leftmost_bits(digest), &inverse)?;
        let public_exponent = self.order.product(r, &inverse)?;
        let left = self.modulus.power(&self.generator, &digest_exponent)?;
        let right = self.modulus.power(&self.public, &public_exponent)?;
        let found = self.order.remainder(&self.modulus.product(&left, &right)?)?;
        Some(found == *r)
    }

    /// As many leading bits of the digest as the order has.
    fn leftmost_bits(&self, digest: &[u8]) -> Integer {
        let excess = (8 * digest.len()).saturating_sub(self.order.value().bits() as usize);
        Integer::from_octets(digest).shifted_right(excess)
    }
}

/// Twice the largest of the standard.
const ORDER_BITS_MAX: u32 = 512;
