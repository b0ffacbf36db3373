from nas.accuracy.block_scores import Expressivity, Progressivity, Trainability
from nas.accuracy.gradient_scores import Dss, GradientNorm, JacobianCovariance, Snip, ZiCo
from nas.accuracy.pattern_scores import Meco, Naswot, Swap
from nas.accuracy.zero_cost import Macs, Params, Synflow
from nas.testing.proxy_suite import ProxySuite


class TestSynflow(ProxySuite):
    def make_proxy(self):
        return Synflow()


class TestNaswot(ProxySuite):
    def make_proxy(self):
        return Naswot()


class TestParams(ProxySuite):
    def make_proxy(self):
        return Params()


class TestMacs(ProxySuite):
    def make_proxy(self):
        return Macs()


class TestDss(ProxySuite):
    def make_proxy(self):
        return Dss()


class TestGradientNorm(ProxySuite):
    def make_proxy(self):
        return GradientNorm()


class TestJacobianCovariance(ProxySuite):
    def make_proxy(self):
        return JacobianCovariance()


class TestSnip(ProxySuite):
    def make_proxy(self):
        return Snip()


class TestExpressivity(ProxySuite):
    def make_proxy(self):
        return Expressivity()


class TestProgressivity(ProxySuite):
    def make_proxy(self):
        return Progressivity()


class TestTrainability(ProxySuite):
    def make_proxy(self):
        return Trainability()


class TestZiCo(ProxySuite):
    def make_proxy(self):
        return ZiCo()


class TestSwap(ProxySuite):
    def make_proxy(self):
        return Swap()


class TestMeco(ProxySuite):
    def make_proxy(self):
        return Meco()
