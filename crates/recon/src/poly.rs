//! Polynomials over a field: division, greatest common divisors and roots.
//!
//! The degrees here are at most [`SAMPLES`](crate::dataset::SAMPLES), so the school methods are the
//! fastest ones, and every loop is bounded by the degree, the bits of the modulus, or
//! `ATTEMPTS_MAX`.

use crate::field::{Field, Residue, bits_from_top};
use crate::random::Random;

/// How often one polynomial is tried to be cut in two. Each attempt fails with a probability of
/// about one half at worst, so all of them fail once in 2⁶⁴.
const ATTEMPTS_MAX: usize = 64;

/// A polynomial: its coefficients, constant first, the last one not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poly<const L: usize>(Vec<Residue<L>>);

impl<const L: usize> Poly<L> {
    /// The polynomial zero, which has no degree.
    pub const ZERO: Self = Self(Vec::new());

    /// The polynomial with these coefficients, constant first.
    pub fn new(mut coefficients: Vec<Residue<L>>) -> Self {
        let length = coefficients
            .iter()
            .rposition(|c| !c.is_zero())
            .map_or(0, |last| last + 1);
        coefficients.truncate(length);
        Self(coefficients)
    }

    /// The product of `x - root` over all roots.
    pub fn from_roots(field: &Field<L>, roots: &[Residue<L>]) -> Self {
        roots.iter().fold(Self(vec![field.one()]), |product, &root| {
            product.multiply(field, &Self(vec![field.negate(root), field.one()]))
        })
    }

    /// The coefficients, constant first.
    pub fn coefficients(&self) -> &[Residue<L>] {
        &self.0
    }

    /// The degree; none for the polynomial zero.
    pub fn degree(&self) -> Option<usize> {
        self.0.len().checked_sub(1)
    }

    /// The coefficient of the highest power, zero for the polynomial zero.
    pub fn leading(&self) -> Residue<L> {
        self.0.last().copied().unwrap_or(Residue::ZERO)
    }

    /// The value at a point.
    pub fn evaluate(&self, field: &Field<L>, point: Residue<L>) -> Residue<L> {
        self.0
            .iter()
            .rev()
            .fold(Residue::ZERO, |sum, &c| field.add(field.multiply(sum, point), c))
    }

    /// The sum of both.
    pub fn add(&self, field: &Field<L>, other: &Self) -> Self {
        self.combine(other, |a, b| field.add(a, b))
    }

    /// The difference of both.
    pub fn subtract(&self, field: &Field<L>, other: &Self) -> Self {
        self.combine(other, |a, b| field.subtract(a, b))
    }

    /// The product with a number.
    pub fn scale(&self, field: &Field<L>, factor: Residue<L>) -> Self {
        Self::new(self.0.iter().map(|&c| field.multiply(c, factor)).collect())
    }

    /// The product of both.
    pub fn multiply(&self, field: &Field<L>, other: &Self) -> Self {
        let mut product = vec![Residue::ZERO; (self.0.len() + other.0.len()).saturating_sub(1)];
        for (shift, &a) in self.0.iter().enumerate() {
            for (&b, sum) in other.0.iter().zip(&mut product[shift..]) {
                *sum = field.add(*sum, field.multiply(a, b));
            }
        }
        Self::new(product)
    }

    /// The same polynomial divided by its leading coefficient; none if that has no inverse.
    pub fn monic(&self, field: &Field<L>) -> Option<Self> {
        if self.leading() == field.one() {
            return Some(self.clone());
        }
        Some(self.scale(field, field.inverse(self.leading())?))
    }

    /// Quotient and remainder; none if the leading coefficient of the divisor has no inverse.
    pub fn divide(&self, field: &Field<L>, divisor: &Self) -> Option<(Self, Self)> {
        let inverse = match divisor.leading() {
            leading if leading == field.one() => leading,
            leading => field.inverse(leading)?,
        };
        let low = &divisor.0[..divisor.0.len() - 1];
        let mut rest = self.0.clone();
        let mut quotient = vec![Residue::ZERO; rest.len().saturating_sub(low.len())];
        for shift in (0..quotient.len()).rev() {
            let top = rest.pop().unwrap_or(Residue::ZERO);
            let factor = field.multiply(top, inverse);
            for (&c, sum) in low.iter().zip(&mut rest[shift..]) {
                *sum = field.subtract(*sum, field.multiply(factor, c));
            }
            quotient[shift] = factor;
        }
        Some((Self::new(quotient), Self::new(rest)))
    }

    /// The monic greatest common divisor; none if both are zero.
    pub fn gcd(&self, field: &Field<L>, other: &Self) -> Option<Self> {
        let (mut a, mut b) = (self.clone(), other.clone());
        while b.degree().is_some() {
            let (_, rest) = a.divide(field, &b)?;
            (a, b) = (b, rest);
        }
        a.monic(field)
    }

    /// All roots of a monic polynomial, if it is a product of *distinct* linear factors over the
    /// field; none if it is not. The modulus must be prime.
    ///
    /// The test is exact: the elements of a field of `p` numbers are the roots of `x^p - x`, each
    /// once, so the polynomial splits as wanted if and only if it divides `x^p - x`. The roots are then
    /// told apart as D. G. Cantor and H. Zassenhaus do (*A new algorithm for factoring polynomials
    /// over finite fields*, 1981): half of all numbers are squares, which is to say roots of
    /// `x^((p-1)/2) - 1`, so the common divisor with that polynomial, shifted by a random number, is
    /// likely to hold some roots and not others.
    ///
    /// None is also the answer when `ATTEMPTS_MAX` shifts in a row did not tell any apart.
    pub fn roots(&self, field: &Field<L>, random: &mut Random) -> Option<Vec<Residue<L>>> {
        let mut roots = Vec::with_capacity(self.0.len());
        if self.degree()? < 2 || self.is_simple_quadratic(field) {
            self.collect_roots(field, random, &mut roots)?;
            return Some(roots);
        }
        // x^p = x · (x^((p-1)/2))², and the inner power is at once the first attempt to split.
        let half = self.half_power(field, Residue::ZERO);
        let x = Self(vec![Residue::ZERO, field.one()]);
        let (_, frobenius) = half.multiply(field, &half).multiply(field, &x).divide(field, self)?;
        if frobenius != x {
            return None;
        }
        match self.cut(field, &half)? {
            Some((part, rest)) => {
                part.collect_roots(field, random, &mut roots)?;
                rest.collect_roots(field, random, &mut roots)?;
            }
            None => self.collect_roots(field, random, &mut roots)?,
        }
        Some(roots)
    }

    /// The roots of a monic polynomial that is known to split. The recursion is as deep as the
    /// degree at most.
    fn collect_roots(&self, field: &Field<L>, random: &mut Random, roots: &mut Vec<Residue<L>>) -> Option<()> {
        match self.0.as_slice() {
            [] | [_] => return Some(()),
            [constant, _] => {
                roots.push(field.negate(*constant));
                return Some(());
            }
            [constant, middle, _] if self.is_simple_quadratic(field) => {
                roots.extend(quadratic_roots(field, *constant, *middle)?);
                return Some(());
            }
            _ => {}
        }
        for _ in 0..ATTEMPTS_MAX {
            let half = self.half_power(field, field.small(random.next_u64()));
            if let Some((part, rest)) = self.cut(field, &half)? {
                part.collect_roots(field, random, roots)?;
                return rest.collect_roots(field, random, roots);
            }
        }
        None
    }

    /// Whether [`quadratic_roots`] solves it: square roots are one power where p is 3 modulo 4.
    fn is_simple_quadratic(&self, field: &Field<L>) -> bool {
        self.degree() == Some(2) && field.modulus()[0] % 4 == 3
    }

    /// Cuts off the common divisor with `half - 1`, if that is a proper part.
    fn cut(&self, field: &Field<L>, half: &Self) -> Option<Option<(Self, Self)>> {
        let part = self.gcd(field, &half.subtract(field, &Self(vec![field.one()])))?;
        if part.degree() == Some(0) || part.degree() == self.degree() {
            return Some(None);
        }
        let (rest, _) = self.divide(field, &part)?;
        Some(Some((part, rest)))
    }

    /// `x + shift` to the power of `(p - 1) / 2`, modulo this monic polynomial.
    ///
    /// Here goes nearly all the time of finding roots, so it works in place.
    fn half_power(&self, field: &Field<L>, shift: Residue<L>) -> Self {
        // p is odd, so dropping its lowest bit is the subtraction and the division at once.
        let limbs = field.modulus();
        let exponent: [u64; L] = std::array::from_fn(|i| limbs[i] >> 1 | limbs.get(i + 1).map_or(0, |next| next << 63));
        let degree = self.0.len() - 1;
        let mut power = vec![Residue::ZERO; degree];
        power[0] = field.one();
        let mut wide = vec![Residue::ZERO; 2 * degree];
        for bit in bits_from_top(&exponent) {
            square(field, &power, &mut wide);
            if bit {
                multiply_shifted(field, shift, &mut wide);
            }
            self.reduce(field, &mut wide);
            power.copy_from_slice(&wide[..degree]);
        }
        Self::new(power)
    }

    /// Reduces coefficients modulo this monic polynomial; those from its degree on become
    /// meaningless.
    fn reduce(&self, field: &Field<L>, coefficients: &mut [Residue<L>]) {
        let degree = self.0.len() - 1;
        for shift in (0..coefficients.len() - degree).rev() {
            let factor = coefficients[shift + degree];
            if factor.is_zero() {
                continue;
            }
            for (&c, sum) in self.0[..degree].iter().zip(&mut coefficients[shift..]) {
                *sum = field.subtract(*sum, field.multiply(factor, c));
            }
        }
    }

    fn combine(&self, other: &Self, operation: impl Fn(Residue<L>, Residue<L>) -> Residue<L>) -> Self {
        let coefficient = |poly: &Self, i: usize| poly.0.get(i).copied().unwrap_or(Residue::ZERO);
        let length = self.0.len().max(other.0.len());
        Self::new(
            (0..length)
                .map(|i| operation(coefficient(self, i), coefficient(other, i)))
                .collect(),
        )
    }
}

/// The roots of `x² + middle·x + constant` if they are two, for a prime that is 3 modulo 4. There
/// `y^((p+1)/4)` is a square root of `y` if `y` has one, and squaring it tells.
fn quadratic_roots<const L: usize>(
    field: &Field<L>,
    constant: Residue<L>,
    middle: Residue<L>,
) -> Option<[Residue<L>; 2]> {
    let half = field.negate(field.multiply(middle, field.inverse(field.small(2))?));
    let square = field.subtract(field.multiply(half, half), constant);
    // (p + 1) / 4 is (p - 3) / 4 + 1, and the first is p without its two low bits.
    let limbs = field.modulus();
    let quarter: [u64; L] = std::array::from_fn(|i| limbs[i] >> 2 | limbs.get(i + 1).map_or(0, |next| next << 62));
    let root = field.multiply(field.power(square, &quarter), square);
    if root.is_zero() || field.multiply(root, root) != square {
        return None;
    }
    Some([field.add(half, root), field.subtract(half, root)])
}

/// The square of coefficients: products of different ones occur twice and are computed once.
fn square<const L: usize>(field: &Field<L>, coefficients: &[Residue<L>], square: &mut [Residue<L>]) {
    square.fill(Residue::ZERO);
    for (i, &a) in coefficients.iter().enumerate() {
        for (&b, sum) in coefficients[i + 1..].iter().zip(&mut square[2 * i + 1..]) {
            *sum = field.add(*sum, field.multiply(a, b));
        }
    }
    for (pair, &a) in square.chunks_exact_mut(2).zip(coefficients) {
        pair[0] = field.add(field.add(pair[0], pair[0]), field.multiply(a, a));
        pair[1] = field.add(pair[1], pair[1]);
    }
}

/// Multiplies coefficients, the last of which is zero, by `x + shift`.
fn multiply_shifted<const L: usize>(field: &Field<L>, shift: Residue<L>, coefficients: &mut [Residue<L>]) {
    for i in (1..coefficients.len()).rev() {
        let shifted = if shift.is_zero() {
            shift
        } else {
            field.multiply(coefficients[i], shift)
        };
        coefficients[i] = field.add(coefficients[i - 1], shifted);
    }
    coefficients[0] = field.multiply(coefficients[0], shift);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small_field() -> Field<1> {
        Field::new([10_007]).unwrap()
    }

    fn poly(field: &Field<1>, coefficients: &[i64]) -> Poly<1> {
        let residue = |&c: &i64| match field.small(c.unsigned_abs()) {
            magnitude if c < 0 => field.negate(magnitude),
            magnitude => magnitude,
        };
        Poly::new(coefficients.iter().map(residue).collect())
    }

    #[test]
    fn distinct_roots_are_found_whatever_the_seed() {
        let field = small_field();
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut roots: Vec<u64> = (0..=seed % 6).map(|_| random.next_u64() % 10_007).collect();
            roots.sort();
            roots.dedup();
            let residues: Vec<_> = roots.iter().map(|&root| field.small(root)).collect();
            let found = Poly::from_roots(&field, &residues).roots(&field, &mut random).unwrap();
            let mut found: Vec<u64> = found.into_iter().map(|root| field.limbs(root)[0]).collect();
            found.sort();
            assert_eq!(found, roots);
        }
    }

    #[test]
    fn a_prime_that_is_one_modulo_four_will_do() {
        let field = Field::new([65_537]).unwrap();
        let roots = [5, 6, 7, 9].map(|root| field.small(root));
        for count in 0..=roots.len() {
            let found = Poly::from_roots(&field, &roots[..count])
                .roots(&field, &mut Random::new(3))
                .unwrap();
            let mut found: Vec<u64> = found.into_iter().map(|root| field.limbs(root)[0]).collect();
            found.sort();
            assert_eq!(found, [5, 6, 7, 9][..count]);
        }
        let twice = Poly::from_roots(&field, &[roots[0], roots[0]]);
        assert_eq!(twice.roots(&field, &mut Random::new(3)), None);
    }

    #[test]
    fn what_does_not_split_into_distinct_factors_has_no_roots() {
        let field = small_field();
        let mut random = Random::new(1);
        // Modulo 10007, which is 3 modulo 4, minus one is not a square.
        for coefficients in [
            &[1, 0, 1][..],
            &[25, -10, 1],
            &[0, 1, 0, 1],
            &[0, 0, 1],
            &[1, 0, 2, 0, 1],
        ] {
            assert_eq!(
                poly(&field, coefficients).roots(&field, &mut random),
                None,
                "{coefficients:?}"
            );
        }
    }

    #[test]
    fn division_and_gcd_agree_with_multiplication() {
        let field = small_field();
        let (a, b, c) = (
            poly(&field, &[3, 1, 4, 1]),
            poly(&field, &[1, 5, 9]),
            poly(&field, &[2, 1]),
        );
        let product = a.multiply(&field, &b).add(&field, &c);
        assert_eq!(product.divide(&field, &b), Some((a.clone(), c.clone())));
        let common = a.multiply(&field, &c).gcd(&field, &b.multiply(&field, &c)).unwrap();
        assert_eq!(common, c);
        assert_eq!(Poly::<1>::ZERO.gcd(&field, &Poly::ZERO), None);
    }
}
