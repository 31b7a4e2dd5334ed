"""reviews: waivers, condemned files, the audit trail, and re-scans"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

QUARANTINED = sa.text("verdict IN ('unknown', 'malicious')")


def upgrade() -> None:
    op.add_column('versions', sa.Column('ruleset', sa.Text(), nullable=True, comment='the rules that the verdict was reached by'))
    op.add_column('versions', sa.Column('waived_until', sa.DateTime(timezone=True), nullable=True, comment='when the first waiver ends that the verdict leans on'))
    op.create_index('ix_versions_sha256', 'versions', ['sha256'], unique=False)
    op.create_index('ix_versions_quarantine', 'versions', ['created_at', 'id'], unique=False, postgresql_where=QUARANTINED)
    op.add_column('runs', sa.Column('purpose', sa.Text(), server_default='intake', nullable=False))
    op.add_column('runs', sa.Column('cleaned_at', sa.DateTime(timezone=True), nullable=True, comment='when what it had in staging was removed'))
    op.create_check_constraint(op.f('ck_runs_purpose'), 'runs', "purpose IN ('intake', 'rescan')")
    op.execute(
        "UPDATE runs SET cleaned_at = runs.finished_at FROM versions "
        "WHERE versions.id = runs.version_id AND versions.original_key IS NOT NULL"
    )
    op.create_table('waivers',
    sa.Column('id', sa.Uuid(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('sha256', sa.Text(), nullable=False, comment='of the one file that it is for'),
    sa.Column('rule', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('version_id', sa.Uuid(), nullable=True, comment='where it was asked for'),
    sa.Column('granted_by', sa.Uuid(), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['granted_by'], ['users.id'], name=op.f('fk_waivers_granted_by_users')),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_waivers_version_id_versions'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_waivers'))
    )
    op.create_index('ix_waivers_sha256_rule', 'waivers', ['sha256', 'rule'], unique=False)
    op.create_table('condemned',
    sa.Column('sha256', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('condemned_by', sa.Uuid(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['condemned_by'], ['users.id'], name=op.f('fk_condemned_condemned_by_users')),
    sa.PrimaryKeyConstraint('sha256', name=op.f('pk_condemned'))
    )
    op.create_table('audit',
    sa.Column('id', sa.BigInteger(), autoincrement=False, nullable=False, comment='1, 2, 3, … without gaps'),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('actor_id', sa.Uuid(), nullable=True, comment='null: Slipway itself'),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('action', sa.Text(), nullable=False),
    sa.Column('subject', sa.Text(), nullable=False),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('previous', sa.Text(), nullable=False, comment='hash of the entry before'),
    sa.Column('hash', sa.Text(), nullable=False, comment='hex SHA-256 of previous and this entry'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit')),
    sa.UniqueConstraint('hash', name=op.f('uq_audit_hash'))
    )
    op.create_index('ix_audit_subject_id', 'audit', ['subject', 'id'], unique=False)
    op.execute(
        "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
    )


def downgrade() -> None:
    op.drop_table('audit')
    op.execute("DROP FUNCTION audit_is_append_only()")
    op.drop_table('condemned')
    op.drop_table('waivers')
    op.drop_constraint(op.f('ck_runs_purpose'), 'runs', type_='check')
    op.drop_column('runs', 'cleaned_at')
    op.drop_column('runs', 'purpose')
    op.drop_index('ix_versions_quarantine', table_name='versions')
    op.drop_index('ix_versions_sha256', table_name='versions')
    op.drop_column('versions', 'waived_until')
    op.drop_column('versions', 'ruleset')
