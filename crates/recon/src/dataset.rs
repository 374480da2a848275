//! What is reconciled, as a value: a prime, a length, sample points, thresholds and manners.
//!
//! The engine never asks *which* dataset it works on. Whatever differs between two of them, the
//! generation of the protocol included, is a field here.

use crate::element::{Element, Value};
use crate::field::{Field, FieldError, Residue};
use crate::poly::Poly;

/// Values with which the rational function of two nodes is interpolated. The difference of two
/// nodes can be computed from their samples if it has at most so many elements.
pub const MBAR: usize = 5;

/// Sample values of a node: those for interpolation and one to check the result.
pub const SAMPLES: usize = MBAR + 1;

/// One reconciled set: where its arithmetic happens and how peers speak about it.
#[derive(Clone, Debug)]
pub struct Dataset<const L: usize> {
    /// The name the node and its operator know it by.
    pub name: String,
    /// When nodes split, and when whole sets travel instead of samples.
    pub thresholds: Thresholds,
    /// What the protocol generation allows.
    pub conduct: Conduct,
    field: Field<L>,
    value_length: usize,
    element_length: usize,
    prefix_bits_max: usize,
    points: [Residue<L>; SAMPLES],
    vanishing: Poly<L>,
    basis: [Poly<L>; SAMPLES],
}

/// Sizes that steer the work. None of them has to agree between peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// A leaf with more elements than this splits.
    pub leaf_max: usize,
    /// An inner node with at most so many elements becomes a leaf again.
    pub leaf_join: usize,
    /// The walker sends all elements of a node that has at most so many, else its samples.
    pub full_request_max: u64,
    /// The solver answers samples it cannot solve with all its elements if it has at most so many.
    pub full_reply_max: u64,
    /// No list of elements we write is longer.
    pub elements_max: usize,
}

/// Where the generations of the protocol differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conduct {
    /// Elements that are too large, forbidden, repeated or outside the prefix of their request are
    /// dropped and counted; otherwise they end the session.
    pub drops_unfit_elements: bool,
    /// SyncFail may answer a request with elements; otherwise a too long answer is cut short.
    pub splits_full_requests: bool,
    /// A request may be refused politely.
    pub refuses: bool,
    /// A fault of the peer is told before closing.
    pub reports_faults: bool,
    /// Bytes of the longest message that is read: type byte and payload.
    pub message_max: usize,
}

/// The values a dataset is made from; see [`Dataset::new`].
#[derive(Clone, Debug)]
pub struct Parameters<const L: usize> {
    /// The prime, as limbs, lowest first.
    pub modulus: [u64; L],
    /// Bytes of an element, all of them free: elements are below `256^element_length`.
    pub element_length: usize,
    /// Bytes of an element or sample in a message.
    pub value_length: usize,
    /// The longest legal prefix in bits.
    pub prefix_bits_max: usize,
    /// The points at which the characteristic polynomials are sampled; the last one checks.
    pub points: [i64; SAMPLES],
    /// See [`Thresholds`].
    pub thresholds: Thresholds,
    /// See [`Conduct`].
    pub conduct: Conduct,
}

/// Parameters that fit no field or no set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatasetError {
    /// The modulus does not suit Montgomery arithmetic.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Lengths must satisfy `256^element_length < modulus < 256^value_length` and fit the limbs.
    #[error("the lengths do not fit the modulus")]
    Length,
    /// Two sample points are equal.
    #[error("two sample points are equal")]
    Points,
}

/// Why a number cannot be a member of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has more bytes than an element.
    #[error("an element is too large")]
    TooLarge,
    /// It is one of the sample points, where it would make a sample zero.
    #[error("an element is a sample point")]
    SamplePoint,
}

/// The number of elements below a prefix and the samples of their characteristic polynomial: the
/// product of `point - element` over all elements, for each point. One everywhere if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary<const L: usize> {
    /// How many elements there are.
    pub count: u64,
    /// One product for each sample point.
    pub samples: [Residue<L>; SAMPLES],
}

impl Dataset<3> {
    /// The first generation: 16-byte elements and the 129-bit prime that SKS chose.
    pub fn v1(name: &str) -> Self {
        let parameters = Parameters {
            modulus: [0xc91f_85d9_30a5_431b, 0x8f1d_10e4_878b_1fdf, 1],
            element_length: 16,
            value_length: 17,
            prefix_bits_max: 136,
            points: [0, -1, 1, -2, 2, -3],
            thresholds: Thresholds::default(),
            conduct: Conduct {
                drops_unfit_elements: true,
                splits_full_requests: false,
                refuses: false,
                reports_faults: false,
                message_max: 16 << 20,
            },
        };
        Self::new(name, parameters).expect("the constants fit")
    }
}

impl Dataset<5> {
    /// The second generation: 32-byte elements and the 257-bit prime of Conflux.
    pub fn v2(name: &str) -> Self {
        let parameters = Parameters {
            modulus: [
                0xc962_d5d5_d6dd_8027,
                0x1943_08a4_a509_0b36,
                0xab7d_9227_99e8_9396,
                0xddf4_8ac3_4519_1813,
                1,
            ],
            element_length: 32,
            value_length: 33,
            prefix_bits_max: 256,
            points: [0, -1, 1, -2, 2, -3],
            thresholds: Thresholds::default(),
            conduct: Conduct {
                drops_unfit_elements: false,
                splits_full_requests: true,
                refuses: true,
                reports_faults: true,
                message_max: 1 << 20,
            },
        };
        Self::new(name, parameters).expect("the constants fit")
    }
}

impl Default for Thresholds {
    /// The sizes both generations use.
    fn default() -> Self {
        Self {
            leaf_max: 50,
            leaf_join: 25,
            full_request_max: 50,
            full_reply_max: 50,
            elements_max: 20_000,
        }
    }
}

impl<const L: usize> Dataset<L> {
    /// A dataset with these parameters.
    pub fn new(name: &str, parameters: Parameters<L>) -> Result<Self, DatasetError> {
        let field = Field::new(parameters.modulus)?;
        let bits = field.bits();
        let Parameters {
            element_length,
            value_length,
            prefix_bits_max,
            ..
        } = parameters;
        if 8 * element_length >= bits || 8 * value_length < bits || value_length > 8 * L || prefix_bits_max > 64 * L {
            return Err(DatasetError::Length);
        }
        let points = parameters.points.map(|point| {
            let magnitude = field.small(point.unsigned_abs());
            if point < 0 { field.negate(magnitude) } else { magnitude }
        });
        let (vanishing, basis) = lagrange(&field, &points).ok_or(DatasetError::Points)?;
        Ok(Self {
            name: name.to_owned(),
            thresholds: parameters.thresholds,
            conduct: parameters.conduct,
            field,
            value_length,
            element_length,
            prefix_bits_max,
            points,
            vanishing,
            basis,
        })
    }

    /// The field of samples and elements.
    pub fn field(&self) -> &Field<L> {
        &self.field
    }

    /// Bytes of an element.
    pub fn element_length(&self) -> usize {
        self.element_length
    }

    /// Bytes of an element or sample in a message.
    pub fn value_length(&self) -> usize {
        self.value_length
    }

    /// The longest legal prefix in bits.
    pub fn prefix_bits_max(&self) -> usize {
        self.prefix_bits_max
    }

    /// The points of the samples.
    pub fn points(&self) -> &[Residue<L>; SAMPLES] {
        &self.points
    }

    /// The element that a number stands for.
    pub fn element(&self, value: Value<L>) -> Result<Element<L>, Unfit> {
        let limbs = value.limbs();
        let whole = self.element_length / 8;
        let spare = 8 * (self.element_length % 8);
        if whole < L && (limbs[whole] >> spare != 0 || limbs[whole + 1..].iter().any(|&limb| limb != 0)) {
            return Err(Unfit::TooLarge);
        }
        let element = Element::unchecked(value);
        match self.factors(&element).iter().any(|factor| factor.is_zero()) {
            true => Err(Unfit::SamplePoint),
            false => Ok(element),
        }
    }

    /// The element with these little-endian bytes.
    pub fn element_from_bytes(&self, bytes: &[u8]) -> Result<Element<L>, Unfit> {
        self.element(Value::from_bytes(bytes).ok_or(Unfit::TooLarge)?)
    }

    /// The bytes of an element, [`element_length`](Self::element_length) of them.
    pub fn element_bytes(&self, element: &Element<L>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.element_length);
        element.value().write(self.element_length, &mut bytes);
        bytes
    }

    /// The sample that a number stands for: below the modulus and not zero, for zero would mean
    /// that a sample point is in the set.
    pub fn sample(&self, value: Value<L>) -> Option<Residue<L>> {
        self.field.residue(value.limbs()).filter(|residue| !residue.is_zero())
    }

    /// The number that stands for a residue in a message.
    pub fn value(&self, residue: Residue<L>) -> Value<L> {
        Value::from_limbs(self.field.limbs(residue))
    }

    /// The residue of an element.
    pub fn residue(&self, element: &Element<L>) -> Residue<L> {
        self.field.residue(element.value().limbs()).unwrap_or(Residue::ZERO)
    }

    /// The summary of no elements.
    pub fn empty(&self) -> Summary<L> {
        Summary {
            count: 0,
            samples: [self.field.one(); SAMPLES],
        }
    }

    /// The summary of these elements.
    pub fn summarise<'a>(&self, elements: impl IntoIterator<Item = &'a Element<L>>) -> Summary<L> {
        let mut summary = self.empty();
        for element in elements {
            summary.count += 1;
            self.scale(&mut summary.samples, &self.factors(element));
        }
        summary
    }

    /// Adds to a summary what sums up other elements.
    pub fn add(&self, total: &mut Summary<L>, part: &Summary<L>) {
        total.count += part.count;
        self.scale(&mut total.samples, &part.samples);
    }

    /// What takes these elements away again when it is multiplied in; none if a sample is zero.
    pub fn inverse(&self, part: &Summary<L>) -> Option<[Residue<L>; SAMPLES]> {
        let mut samples = part.samples;
        self.field.invert_all(&mut samples).then_some(samples)
    }

    /// Multiplies samples point by point.
    #[inline]
    pub fn scale(&self, samples: &mut [Residue<L>; SAMPLES], factors: &[Residue<L>; SAMPLES]) {
        for (sample, &factor) in samples.iter_mut().zip(factors) {
            *sample = self.field.multiply(*sample, factor);
        }
    }

    /// What an element contributes to the samples: `point - element` for each point.
    #[inline]
    pub(crate) fn factors(&self, element: &Element<L>) -> [Residue<L>; SAMPLES] {
        let residue = self.residue(element);
        self.points.map(|point| self.field.subtract(point, residue))
    }

    /// The polynomial that is zero exactly at the sample points.
    pub(crate) fn vanishing(&self) -> &Poly<L> {
        &self.vanishing
    }

    /// For each sample point the polynomial that is one there and zero at the others.
    pub(crate) fn basis(&self) -> &[Poly<L>; SAMPLES] {
        &self.basis
    }
}

/// Lagrange's polynomials for distinct points, and their common multiple.
fn lagrange<const L: usize>(field: &Field<L>, points: &[Residue<L>; SAMPLES]) -> Option<(Poly<L>, [Poly<L>; SAMPLES])> {
    let vanishing = Poly::from_roots(field, points);
    let mut basis = [const { Poly::ZERO }; SAMPLES];
    for (polynomial, &point) in basis.iter_mut().zip(points) {
        let (others, _) = vanishing.divide(field, &Poly::from_roots(field, &[point]))?;
        let height = field.inverse(others.evaluate(field, point))?;
        *polynomial = others.scale(field, height);
    }
    Some((vanishing, basis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_the_set_are_told_apart() {
        let dataset = Dataset::v1("test");
        for small in 0..3u8 {
            assert_eq!(dataset.element_from_bytes(&[small]), Err(Unfit::SamplePoint));
        }
        assert!(dataset.element_from_bytes(&[3]).is_ok());
        assert!(dataset.element_from_bytes(&[0xff; 16]).is_ok());
        let mut wide = [0; 17];
        wide[16] = 1;
        assert_eq!(dataset.element_from_bytes(&wide), Err(Unfit::TooLarge));
        assert_eq!(dataset.sample(Value::from_bytes(&[]).unwrap()), None);
        assert_eq!(dataset.sample(Value::from_limbs(dataset.field().modulus())), None);
    }

    #[test]
    fn equal_points_and_wrong_lengths_are_refused() {
        let parameters = Parameters {
            modulus: [65537],
            element_length: 2,
            value_length: 3,
            prefix_bits_max: 24,
            points: [0, -1, 1, -2, 2, -3],
            thresholds: Thresholds::default(),
            conduct: Dataset::v1("").conduct,
        };
        assert!(Dataset::new("tiny", parameters.clone()).is_ok());
        let points = Parameters {
            points: [0, 1, 2, 3, 4, 65537],
            ..parameters.clone()
        };
        assert_eq!(Dataset::new("tiny", points).unwrap_err(), DatasetError::Points);
        let length = Parameters {
            element_length: 3,
            ..parameters
        };
        assert_eq!(Dataset::new("tiny", length).unwrap_err(), DatasetError::Length);
    }
}
