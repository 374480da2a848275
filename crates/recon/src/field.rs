//! Arithmetic modulo a dataset's prime.
//!
//! The modulus is a value, the number of 64-bit limbs a constant the compiler unrolls: the 129-bit
//! prime of the first protocol takes three limbs, the 257-bit prime of the second five.
//!
//! A [`Residue`] is kept in Montgomery form: `a` stands in memory as `a·R mod p` with `R = 2^(64·L)`.
//! The product of two such numbers divided by `R` is again of that form, and a division by `R`
//! needs no division at all: adding a suitable multiple of `p` makes the low limb zero, which is
//! then dropped, `L` times over (P. L. Montgomery, *Modular multiplication without trial division*,
//! 1985; the interleaved order used here is CIOS of Koç, Acar and Kaliski, 1996). Sums, differences and comparisons for
//! equality work on the form as they would on the numbers, so only bytes from and to the outside
//! are converted.
//!
//! Nothing here runs in constant time: every value is public.

use std::fmt;

/// The integers modulo an odd number, with what Montgomery multiplication needs to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<const L: usize> {
    modulus: [u64; L],
    /// `-modulus⁻¹ mod 2⁶⁴`.
    negated_inverse: u64,
    /// `R mod modulus`, the number one.
    one: Residue<L>,
    /// `R² mod modulus`, the factor that brings a number into Montgomery form.
    square: Residue<L>,
}

/// A number below the modulus of its [`Field`], in Montgomery form.
///
/// It does not carry its field. Mixing residues of two fields gives meaningless numbers, never
/// undefined ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Residue<const L: usize>([u64; L]);

/// A modulus that [`Field::new`] cannot work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Montgomery reduction needs an odd modulus.
    #[error("the modulus is even")]
    Even,
    /// The modulus is 1.
    #[error("the modulus is too small")]
    TooSmall,
    /// The highest bit of the highest limb must be free, so that a sum of two residues fits.
    #[error("the modulus leaves no free bit in its highest limb")]
    TooLarge,
}

impl<const L: usize> Residue<L> {
    /// The number zero of every field.
    pub const ZERO: Self = Self([0; L]);

    /// Whether this is the number zero.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl<const L: usize> fmt::Debug for Residue<L> {
    /// Shows the Montgomery form, which is all a residue knows without its field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Residue(")?;
        self.0.iter().rev().try_for_each(|limb| write!(f, "{limb:016x}"))?;
        f.write_str(")")
    }
}

impl<const L: usize> Field<L> {
    /// The field of an odd modulus, given as limbs, lowest first.
    ///
    /// Everything but root finding works for any odd modulus; that it is prime is the caller's
    /// word.
    pub fn new(modulus: [u64; L]) -> Result<Self, FieldError> {
        if L == 0 || modulus[L - 1] >> 62 >= 2 {
            return Err(FieldError::TooLarge);
        }
        if modulus[0] & 1 == 0 {
            return Err(FieldError::Even);
        }
        if modulus[0] == 1 && modulus[1..].iter().all(|&limb| limb == 0) {
            return Err(FieldError::TooSmall);
        }
        // Newton's iteration doubles the number of correct low bits; any odd number is its own
        // inverse modulo 8, so five rounds give 96.
        let mut inverse = modulus[0];
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(modulus[0].wrapping_mul(inverse)));
        }
        let mut field = Self {
            modulus,
            negated_inverse: inverse.wrapping_neg(),
            one: Residue::ZERO,
            square: Residue::ZERO,
        };
        field.one = field.power_of_two(64 * L);
        field.square = field.power_of_two(128 * L);
        Ok(field)
    }

    /// The modulus as limbs, lowest first.
    pub fn modulus(&self) -> [u64; L] {
        self.modulus
    }

    /// The number of bits of the modulus.
    pub fn bits(&self) -> usize {
        let top = self.modulus.iter().rposition(|&limb| limb != 0).unwrap_or(0);
        64 * (top + 1) - self.modulus[top].leading_zeros() as usize
    }

    /// The number one.
    pub fn one(&self) -> Residue<L> {
        self.one
    }

    /// A small number, reduced.
    pub fn small(&self, number: u64) -> Residue<L> {
        let mut limbs = [0; L];
        limbs[0] = number;
        // The product with R² is below the modulus whatever the limbs are.
        self.multiply(Residue(limbs), self.square)
    }

    /// The residue of a number given as limbs, lowest first; none if it is not below the modulus.
    pub fn residue(&self, limbs: [u64; L]) -> Option<Residue<L>> {
        less(&limbs, &self.modulus).then(|| self.multiply(Residue(limbs), self.square))
    }

    /// The number as limbs, lowest first.
    pub fn limbs(&self, residue: Residue<L>) -> [u64; L] {
        let mut one = [0; L];
        one[0] = 1;
        self.multiply(residue, Residue(one)).0
    }

    /// `a + b`.
    #[inline]
    pub fn add(&self, a: Residue<L>, b: Residue<L>) -> Residue<L> {
        self.reduce_once(add(a.0, b.0))
    }

    /// `a - b`.
    #[inline]
    pub fn subtract(&self, a: Residue<L>, b: Residue<L>) -> Residue<L> {
        let (difference, borrow) = subtract(a.0, b.0);
        let mask = (borrow as u64).wrapping_neg();
        Residue(add(difference, self.modulus.map(|limb| limb & mask)))
    }

    /// `-a`.
    pub fn negate(&self, a: Residue<L>) -> Residue<L> {
        self.subtract(Residue::ZERO, a)
    }

    /// `a · b`.
    #[inline(always)]
    pub fn multiply(&self, a: Residue<L>, b: Residue<L>) -> Residue<L> {
        let mut sum = [0u64; L];
        for &digit in &b.0 {
            let (low, mut carry_product) = multiply_add(a.0[0], digit, sum[0], 0);
            let factor = low.wrapping_mul(self.negated_inverse);
            let (_, mut carry_reduction) = multiply_add(factor, self.modulus[0], low, 0);
            for j in 1..L {
                let limb;
                (limb, carry_product) = multiply_add(a.0[j], digit, sum[j], carry_product);
                (sum[j - 1], carry_reduction) = multiply_add(factor, self.modulus[j], limb, carry_reduction);
            }
            // The free bit of the modulus keeps the running sum below 2p, hence inside L limbs.
            sum[L - 1] = carry_product.wrapping_add(carry_reduction);
        }
        self.reduce_once(sum)
    }

    /// `base` to the power of an exponent given as limbs, lowest first.
    pub fn power(&self, base: Residue<L>, exponent: &[u64]) -> Residue<L> {
        bits_from_top(exponent).fold(self.one, |power, bit| {
            let power = self.multiply(power, power);
            if bit { self.multiply(power, base) } else { power }
        })
    }

    /// The inverse; none if the number has a factor in common with the modulus (zero has).
    ///
    /// The binary form of Euclid's algorithm (Knuth, *The Art of Computer Programming* 4.5.2).
    /// Invariant: `u·square = a·x` and `v·square = a·y` modulo p, where `a` is the Montgomery form;
    /// so when `u` is one, `x` is `square / a`, the Montgomery form of the inverse.
    pub fn inverse(&self, a: Residue<L>) -> Option<Residue<L>> {
        let (mut u, mut v) = (a.0, self.modulus);
        let (mut x, mut y) = (self.square, Residue::ZERO);
        while u != [0; L] {
            while u[0] & 1 == 0 {
                u = halve(u);
                x = self.halve(x);
            }
            if less(&u, &v) {
                (u, v, x, y) = (v, u, y, x);
            }
            (u, _) = subtract(u, v);
            x = self.subtract(x, y);
        }
        let mut one = [0; L];
        one[0] = 1;
        (v == one).then_some(y)
    }

    /// Replaces every number by its inverse, for the price of one inversion and three products
    /// each. If one of them has no inverse, none is changed and the result is false.
    pub fn invert_all(&self, numbers: &mut [Residue<L>]) -> bool {
        let mut products = Vec::with_capacity(numbers.len());
        let mut product = self.one;
        for &number in numbers.iter() {
            products.push(product);
            product = self.multiply(product, number);
        }
        let Some(mut inverse) = self.inverse(product) else {
            return false;
        };
        for (number, before) in numbers.iter_mut().zip(products).rev() {
            let next = self.multiply(inverse, *number);
            *number = self.multiply(inverse, before);
            inverse = next;
        }
        true
    }

    /// `2^exponent`, taken as a plain number: what initialises the Montgomery constants.
    fn power_of_two(&self, exponent: usize) -> Residue<L> {
        let mut one = [0; L];
        one[0] = 1;
        (0..exponent).fold(Residue(one), |power, _| self.add(power, power))
    }

    /// `a / 2`, the same in Montgomery form as out of it.
    fn halve(&self, a: Residue<L>) -> Residue<L> {
        let mask = (a.0[0] & 1).wrapping_neg();
        Residue(halve(add(a.0, self.modulus.map(|limb| limb & mask))))
    }

    /// Brings a number below `2p` below `p`.
    #[inline]
    fn reduce_once(&self, limbs: [u64; L]) -> Residue<L> {
        let (reduced, borrow) = subtract(limbs, self.modulus);
        Residue(if borrow { limbs } else { reduced })
    }
}

/// The bits of an exponent given as limbs, lowest first: from the highest that is set down.
pub(crate) fn bits_from_top(limbs: &[u64]) -> impl Iterator<Item = bool> + '_ {
    limbs
        .iter()
        .rev()
        .flat_map(|&limb| (0..64).rev().map(move |bit| limb >> bit & 1 == 1))
        .skip_while(|&bit| !bit)
}

/// `a · b + c + d` as low and high limb; it cannot overflow.
#[inline(always)]
fn multiply_add(a: u64, b: u64, c: u64, d: u64) -> (u64, u64) {
    let sum = u128::from(a) * u128::from(b) + u128::from(c) + u128::from(d);
    (sum as u64, (sum >> 64) as u64)
}

/// The sum, without the last carry.
#[inline(always)]
fn add<const L: usize>(mut a: [u64; L], b: [u64; L]) -> [u64; L] {
    let mut carry = false;
    for (limb, other) in a.iter_mut().zip(b) {
        let (sum, first) = limb.overflowing_add(other);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        (*limb, carry) = (sum, first | second);
    }
    a
}

/// The difference and whether it would be negative.
#[inline(always)]
fn subtract<const L: usize>(mut a: [u64; L], b: [u64; L]) -> ([u64; L], bool) {
    let mut borrow = false;
    for (limb, other) in a.iter_mut().zip(b) {
        let (difference, first) = limb.overflowing_sub(other);
        let (difference, second) = difference.overflowing_sub(u64::from(borrow));
        (*limb, borrow) = (difference, first | second);
    }
    (a, borrow)
}

fn halve<const L: usize>(a: [u64; L]) -> [u64; L] {
    std::array::from_fn(|i| a[i] >> 1 | a.get(i + 1).map_or(0, |next| next << 63))
}

fn less<const L: usize>(a: &[u64; L], b: &[u64; L]) -> bool {
    a.iter().rev().lt(b.iter().rev())
}
