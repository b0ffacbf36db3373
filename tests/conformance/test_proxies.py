from nas.accuracy.zero_cost import Macs, Naswot, Params, Synflow
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
