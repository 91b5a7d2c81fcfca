"""
The room of main.cf and master.cf: syntax, the parameter table, values.

L{load_config} and L{config_from_text} give a L{Config}, which answers questions by parameter name
(L{IConfig<qmqpd_tx.interfaces.IConfig>}) and lists the L{MasterService}s.
"""

from qmqpd_tx.config.host import Host
from qmqpd_tx.config.load import config_files, config_from_text, load_config
from qmqpd_tx.config.main_cf import Setting
from qmqpd_tx.config.master_cf import MasterService
from qmqpd_tx.config.model import Config

__all__ = ["Config", "Host", "MasterService", "Setting", "config_files", "config_from_text", "load_config"]
