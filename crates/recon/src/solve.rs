//! From the samples of two sets to what each of them lacks.
//!
//! The *characteristic polynomial* of a set is the product of `x - z` over its elements `z`. Divide
//! that of one set by that of another and the common elements cancel: what is left is a fraction
//! whose numerator has the roots `A ∖ B` and whose denominator has the roots `B ∖ A`, however large
//! the common part is. A sample is the value of the characteristic polynomial at an agreed
//! point (a product of `point - z`, never `z - point`: the sizes differ, so the sign matters), hence
//! the ratio of two samples is a value of that fraction, and a few values determine it. This is the set reconciliation of Y. Minsky, A. Trachtenberg and R. Zippel, *Set
//! reconciliation with nearly optimal communication complexity* (IEEE Transactions on Information
//! Theory 49, 2003); cutting larger differences with a tree until they fit is from Minsky and
//! Trachtenberg, *Practical set reconciliation* (2002).
//!
//! **Which degrees.** Write `d` for the difference of the sizes. Numerator and denominator are
//! monic and their degrees differ by `d`, so the number of unknown coefficients has the parity of
//! `d`: with [`MBAR`] values for them it is five or four, and that is the largest difference in
//! elements that can be found.
//!
//! **How.** Interpolate the six ratios by a polynomial `f` of degree five and run Euclid's algorithm on
//! the polynomial that vanishes at the sample points, and `f`. Each remainder `r` comes with a cofactor
//! `t` such that `r = t·f` at all sample points. The first remainder small enough for a
//! numerator gives the only candidate `r/t`, already in lowest terms (Cauchy interpolation: J. von zur
//! Gathen, J. Gerhard, *Modern Computer Algebra*, section 5.8). No linear system is solved, so none
//! can be singular when the difference is smaller than the bound.
//!
//! **Whether.** Two conditions hold for a true difference and by chance once in about `p` times
//! otherwise: degrees that differ by exactly `d`, and equal leading coefficients. They are what the
//! sixth value buys. Then both must be products of distinct linear factors whose
//! roots are possible elements; [`Poly::roots`] tests that exactly.

use crate::dataset::{Dataset, MBAR, SAMPLES, Summary};
use crate::element::Element;
use crate::field::Residue;
use crate::poly::Poly;
use crate::random::Random;

/// What two sets do not have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference<const L: usize> {
    /// Elements only the remote set has, in no order.
    pub remote_only: Vec<Element<L>>,
    /// Elements only the local set has, in no order.
    pub local_only: Vec<Element<L>>,
}

/// Why the samples do not yield a difference. All of it is normal between sets that differ in more
/// than [`MBAR`] elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsolved {
    /// The sizes alone differ by more than can be found.
    #[error("the sizes differ too much")]
    Sizes,
    /// No fraction with degrees as small as they must be has these values.
    #[error("the samples fit no small difference")]
    NoFit,
    /// Numerator or denominator is not a product of distinct linear factors.
    #[error("a polynomial does not split into distinct linear factors")]
    NotSplit,
    /// A root is no possible element.
    #[error("a root is not an element")]
    NotAnElement,
}

/// Finds the difference of two sets from their summaries.
///
/// The remote summary may be invented by a hostile peer, but its samples must not be zero (which
/// [`Dataset::sample`] ensures). The work is bounded whatever they are: one division of polynomials for
/// each degree, and for each root found at most 64 powers of polynomials of degree five.
pub fn solve<const L: usize>(
    dataset: &Dataset<L>,
    remote: &Summary<L>,
    local: &Summary<L>,
    random: &mut Random,
) -> Result<Difference<L>, Unsolved> {
    if remote == local {
        return Ok(Difference {
            remote_only: Vec::new(),
            local_only: Vec::new(),
        });
    }
    let (numerator, denominator) = interpolate(dataset, remote, local)?;
    let mut elements = |poly: &Poly<L>| -> Result<Vec<Element<L>>, Unsolved> {
        let roots = poly.roots(dataset.field(), random).ok_or(Unsolved::NotSplit)?;
        let element = |root| dataset.element(dataset.value(root)).map_err(|_| Unsolved::NotAnElement);
        roots.into_iter().map(element).collect()
    };
    Ok(Difference {
        remote_only: elements(&numerator)?,
        local_only: elements(&denominator)?,
    })
}

/// The fraction of the characteristic polynomials of two sets, in lowest terms, as monic numerator
/// and denominator.
pub fn interpolate<const L: usize>(
    dataset: &Dataset<L>,
    remote: &Summary<L>,
    local: &Summary<L>,
) -> Result<(Poly<L>, Poly<L>), Unsolved> {
    let field = dataset.field();
    let difference = i128::from(remote.count) - i128::from(local.count);
    if difference.unsigned_abs() > MBAR as u128 {
        return Err(Unsolved::Sizes);
    }
    let difference = difference as isize;
    let unknowns = if (MBAR as isize + difference) % 2 == 0 {
        MBAR
    } else {
        MBAR - 1
    };
    let degree_max = unknowns.wrapping_add_signed(difference) / 2;
    let ratios = ratios(dataset, remote, local).ok_or(Unsolved::NoFit)?;
    let (numerator, denominator) = cauchy(dataset, &ratios, degree_max).ok_or(Unsolved::NoFit)?;

    let degree = |poly: &Poly<L>| poly.degree().map(|degree| degree as isize);
    let fits = degree(&numerator)
        .zip(degree(&denominator))
        .is_some_and(|(n, d)| n - d == difference)
        && numerator.leading() == denominator.leading()
        && dataset
            .points()
            .iter()
            .all(|&point| !denominator.evaluate(field, point).is_zero());
    if !fits {
        return Err(Unsolved::NoFit);
    }
    numerator
        .monic(field)
        .zip(denominator.monic(field))
        .ok_or(Unsolved::NoFit)
}

/// The values of the fraction at the sample points.
fn ratios<const L: usize>(
    dataset: &Dataset<L>,
    remote: &Summary<L>,
    local: &Summary<L>,
) -> Option<[Residue<L>; SAMPLES]> {
    let mut ratios = local.samples;
    if !dataset.field().invert_all(&mut ratios) {
        return None;
    }
    dataset.scale(&mut ratios, &remote.samples);
    Some(ratios)
}

/// The fraction with these values whose numerator has at most the given degree; by the length of the
/// list, the denominator then has at most `SAMPLES - 1 - degree_max`.
///
/// If the result has a common zero with a sample point there is no such fraction; the caller tests that.
fn cauchy<const L: usize>(
    dataset: &Dataset<L>,
    values: &[Residue<L>; SAMPLES],
    degree_max: usize,
) -> Option<(Poly<L>, Poly<L>)> {
    let field = dataset.field();
    let interpolant = dataset
        .basis()
        .iter()
        .zip(values)
        .fold(Poly::ZERO, |sum, (basis, &value)| {
            sum.add(field, &basis.scale(field, value))
        });
    let (mut before, mut remainder) = (dataset.vanishing().clone(), interpolant);
    let (mut cofactor_before, mut cofactor) = (Poly::ZERO, Poly::new(vec![field.one()]));
    while remainder.degree()? > degree_max {
        let (quotient, rest) = before.divide(field, &remainder)?;
        let next = cofactor_before.subtract(field, &quotient.multiply(field, &cofactor));
        (before, remainder) = (remainder, rest);
        (cofactor_before, cofactor) = (cofactor, next);
    }
    Some((remainder, cofactor))
}
